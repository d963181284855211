"""Easy problems, written by hand: each function here is a reference solution, its docstring the statement.

`make_easy_problems.py` turns this file into `easy_problems.jsonl`. The arguments in the decorator are the test inputs; the
expected results are those of the function. Written for this project; none is taken from a public benchmark.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PROBLEMS: list[tuple[str, Callable[..., Any], tuple[tuple[Any, ...], ...]]] = []
"""(topic, reference solution, test inputs), in order."""


def problem(topic: str, *inputs: tuple[Any, ...]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a reference solution with its test inputs."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        PROBLEMS.append((topic, function, inputs))
        return function

    return register


# --- numbers ------------------------------------------------------------------------------------------------------------


@problem("numbers", (3, False), (3, True), (0, False), (7, True), (10, False))
def bus_fare(stops, child):
    """Return the fare of a bus ride: 2 coins plus 1 coin per stop; a child pays half of it, rounded down."""
    fare = 2 + stops
    return fare // 2 if child else fare


@problem("numbers", (10, 3), (9, 3), (0, 4), (1, 6), (25, 6))
def crates_needed(bottles, per_crate):
    """Return how many crates are needed for the bottles, when each crate holds `per_crate` bottles."""
    return (bottles + per_crate - 1) // per_crate


@problem("numbers", (100, 3, 4), (50, 10, 9), (20, 5, 4), (7, 2, 1), (0, 3, 2))
def tank_after_days(litres, used_per_day, days):
    """Return how many litres are left in a rain tank after `days` days; the tank never holds less than 0."""
    return max(0, litres - used_per_day * days)


@problem("numbers", (4, 2), (1, 0), (0, 5), (10, 10), (6, 1))
def paint_cans(walls, doors):
    """Return how many cans of paint to buy: 3 for every wall and 1 for every 2 doors, a single door counting as a pair."""
    return 3 * walls + (doors + 1) // 2


@problem("numbers", (80, 100), (120, 100), (100, 100), (0, 50), (59, 60))
def seats_left(sold, seats):
    """Return the number of free seats, or -1 if more tickets were sold than there are seats."""
    return seats - sold if sold <= seats else -1


@problem("numbers", (5, 8), (8, 5), (3, 3), (0, 10), (12, 1))
def step_difference(mine, yours):
    """Return how many thousand steps the one who walked less must still walk to draw level."""
    return abs(mine - yours)


@problem("numbers", (250, 3), (100, 1), (90, 4), (0, 2), (75, 6))
def share_of_bill(total, people):
    """Return what each person pays when `total` coins are split evenly and every share is rounded up to a whole coin."""
    return -(-total // people)


@problem("numbers", (2, 30), (0, 45), (1, 0), (3, 59), (0, 0))
def baking_minutes(hours, minutes):
    """Return the baking time in minutes, plus 10 minutes to warm up the oven."""
    return hours * 60 + minutes + 10


@problem("numbers", (20, 5), (20, 0), (7, 10), (100, 25), (1, 1))
def points_after_penalty(points, penalty):
    """Return the points after taking the penalty twice, but never less than 0."""
    return max(points - 2 * penalty, 0)


@problem("numbers", (12, 4), (5, 1), (30, 0), (9, 9), (2, 3))
def garden_fence(length, width):
    """Return the metres of fence around a garden of this length and width, without the gate of 1 metre."""
    return 2 * (length + width) - 1


@problem("numbers", (17,), (20,), (5,), (0,), (99,))
def round_to_five(price):
    """Return the price rounded down to a multiple of 5."""
    return price - price % 5


@problem("numbers", (1000, 10), (200, 50), (40, 0), (999, 100), (360, 25))
def sale_price(price, percent):
    """Return the price after `percent` percent off, as a whole number, rounded down."""
    return price * (100 - percent) // 100


@problem("numbers", (18, 21), (25, 21), (21, 21), (15, 30), (40, 10))
def heating_level(temperature, wanted):
    """Return how many degrees a room must be heated to be as warm as wanted, and 0 if it is warm enough."""
    return max(0, wanted - temperature)


@problem("numbers", (7, 2), (10, 5), (3, 4), (0, 3), (20, 6))
def leftover_buttons(buttons, shirts):
    """Return how many buttons are left over when each shirt gets the same number of buttons and as many as possible."""
    return buttons % shirts


@problem("numbers", (4,), (1,), (0,), (10,), (7,))
def handshakes_with_host(guests):
    """Return the number of handshakes when a host shakes hands twice with every guest, and guests not with each other."""
    return 2 * guests


@problem("numbers", (3, 4, 5), (10, 0, 2), (1, 1, 1), (0, 0, 9), (6, 8, 7))
def middle_score(a, b, c):
    """Return the score that is neither the best nor the worst of the three (with equal scores, the middle one in order)."""
    return sorted([a, b, c])[1]


@problem("numbers", (150, 60), (60, 60), (59, 60), (600, 100), (1, 10))
def full_laps(metres, lap):
    """Return how many full laps of `lap` metres fit into a run of `metres` metres, plus one if the run ends within a lap."""
    return metres // lap + (1 if metres % lap else 0)


@problem("numbers", (5, 20), (20, 5), (0, 0), (8, 8), (13, 2))
def ferry_trips(cars, bikes):
    """Return the trips of a ferry that takes 4 cars or 10 bikes at a time, never both together."""
    return -(-cars // 4) + -(-bikes // 10)


# --- lists --------------------------------------------------------------------------------------------------------------


@problem("lists", ([3, 8, 12, 5], 6), ([], 4), ([6, 6], 6), ([10, 20, 1], 5), ([7], 3))
def heavy_parcels(weights, limit):
    """Return the list of the weights that are above the limit, in the given order."""
    return [weight for weight in weights if weight > limit]


@problem("lists", ([4, 7, 1],), ([],), ([5],), ([2, 2, 2, 2],), ([9, 0, 9, 1],))
def skip_every_other(items):
    """Return the list without its second, fourth, sixth item and so on."""
    return items[::2]


@problem("lists", ([1, 2, 3], 10), ([], 5), ([-1, 0], 1), ([7], -7), ([4, 4], 2))
def raise_prices(prices, amount):
    """Return a new list with the amount added to every price, except that the first price stays as it is."""
    return prices[:1] + [price + amount for price in prices[1:]]


@problem("lists", ([5, 3, 9],), ([1],), ([],), ([2, 8],), ([4, 4, 4, 4],))
def ends_total(numbers):
    """Return the sum of the first and the last number; a single number counts twice, an empty list gives 0."""
    return numbers[0] + numbers[-1] if numbers else 0


@problem("lists", ([18, 25, 31], 20), ([10, 11], 20), ([], 5), ([21, 22, 23], 20), ([20], 20))
def count_hot_days(temperatures, limit):
    """Return how many of the temperatures are above the limit."""
    return sum(1 for temperature in temperatures if temperature > limit)


@problem("lists", (["a", "b", "c"], "|"), ([], "|"), (["q"], "z"), (["m", "m"], "-"), (["1", "2", "3", "4", "5"], "0"))
def divider_after_pairs(items, divider):
    """Return a list with the divider behind every second item (behind the second, the fourth and so on)."""
    result = []
    for number, item in enumerate(items, start=1):
        result.append(item)
        if number % 2 == 0:
            result.append(divider)
    return result


@problem("lists", ([1, 2, 3, 4], 2), ([1, 2, 3], 0), ([5, 6, 7], 3), ([], 1), ([9, 8, 7, 6, 5], 1))
def move_to_back(queue, count):
    """Return the queue after its first `count` people went to the back, in their order."""
    return queue[count:] + queue[:count]


@problem("lists", ([3, -1, 4, -5],), ([],), ([-2, -2],), ([6, 1],), ([0, -7, 0],))
def repair_readings(readings):
    """Return the readings with every negative one replaced by 0."""
    return [max(0, reading) for reading in readings]


@problem("lists", ([10, 20, 30], 1), ([5], 0), ([1, 2], 5), ([7, 8, 9], 2), ([], 0))
def seat_or_none(seats, index):
    """Return the entry at the index, or None if the list has no such index. The index is never negative."""
    return seats[index] if index < len(seats) else None


@problem("lists", ([4, 9, 2, 7], 3), ([1], 1), ([1, 2, 3], 0), ([3, 3, 5], 2), ([8, 1, 6, 5, 20], 4))
def big_jumps(marks, size):
    """Return how many marks are more than `size` above the mark before them."""
    return sum(1 for earlier, later in zip(marks, marks[1:]) if later - earlier > size)


@problem("lists", ([1, 2], [3, 4]), ([], []), ([5], [5]), ([2, 0, 1], [1, 1, 1]), ([10, 20], [0, 3]))
def receipt_total(counts, prices):
    """Return the total of a receipt with the counts and the prices of its lines, two lists of the same length."""
    return sum(count * price for count, price in zip(counts, prices))


@problem("lists", ([5, 1, 5, 2],), ([],), ([3],), ([2, 2, 1],), ([0, 0, 0, 9],))
def count_first_again(items):
    """Return how often the first item comes again later in the list; an empty list gives 0."""
    return items.count(items[0]) - 1 if items else 0


@problem("lists", ([1, 2, 3, 4, 5], 2), ([1, 2], 5), ([], 3), ([7, 8, 9], 1), ([4, 3, 2, 1], 3))
def last_few(entries, count):
    """Return the last `count` entries, newest (the last one) first. If there are fewer, return all of them that way."""
    return entries[::-1][:count]


@problem("lists", ([True, False, True],), ([],), ([False],), ([True, True],), ([False, True, False, False],))
def open_doors(doors):
    """Return the positions (from 0) of the doors that are open, in order."""
    return [position for position, is_open in enumerate(doors) if is_open]


@problem("lists", ([2, 4, 6], 12), ([2, 4, 6], 11), ([], 1), ([5], 4), ([1, 1, 1], 3))
def fits_budget(costs, budget):
    """Return True if all costs together are not above the budget, otherwise False."""
    return sum(costs) <= budget


@problem("lists", ([1, 5, 2],), ([4],), ([],), ([7, 7, 7, 8, 9],), ([3, 9, 4, 10, 11, 12],))
def record_days(scores):
    """Return how many scores are higher than all scores before them; the first score counts as one of them."""
    days = 0
    best = None
    for score in scores:
        if best is None or score > best:
            best = score
            days += 1
    return days


@problem("lists", ([6, 2, 9], 2), ([], 3), ([1], 1), ([5, 5, 1], 5), ([8, 3], 4))
def without_first(items, unwanted):
    """Return the list without the first entry that equals `unwanted`; the list is the same if there is none."""
    result = list(items)
    if unwanted in result:
        result.remove(unwanted)
    return result


@problem("lists", (["tea", "rye", "fig"], 2), (["a"], 1), ([], 2), (["x", "y", "z", "w"], 3), (["p", "q"], 2))
def shelf_of(items, per_shelf):
    """Return a list of shelves (lists), filled in order with at most `per_shelf` items each."""
    return [items[start : start + per_shelf] for start in range(0, len(items), per_shelf)]


# --- strings ------------------------------------------------------------------------------------------------------------


@problem("strings", ("Ann", "Lee"), ("bo", "day"), ("X", "Y"), ("maria", "sol"), ("Q", "van"))
def badge_initials(first, last):
    """Return the initials as capital letters with dots, first name first."""
    return f"{first[0].upper()}.{last[0].upper()}."


@problem("strings", ("green tea",), ("milk",), ("",), ("  big  box ",), ("a b c d",))
def shout_words(text):
    """Return the words of the text in capital letters, each followed by an exclamation mark, joined by one space."""
    return " ".join(word.upper() + "!" for word in text.split())


@problem("strings", ("parcel", 3), ("ab", 5), ("", 2), ("label", 5), ("string", 1))
def short_label(text, size):
    """Return the first `size` letters of the text, followed by a dot if letters were left out."""
    return text if len(text) <= size else text[:size] + "."


@problem("strings", ("a-b-c",), ("none",), ("--",), ("",), ("x-y",))
def dashes_to_spaces(text):
    """Return the text with every dash replaced by a space, without spaces at its ends."""
    return text.replace("-", " ").strip()


@problem("strings", ("banana", "a", "o"), ("hello", "l", "L"), ("", "a", "b"), ("xyz", "q", "w"), ("aaa", "a", "b"))
def swap_first_letter(text, old, new):
    """Return the text with only the first occurrence of the letter `old` replaced by `new`."""
    return text.replace(old, new, 1)


@problem("strings", ("seat 12b",), ("no digits",), ("2024-05",), ("",), ("a1b22c333",))
def digits_only(text):
    """Return the digits of the text, in order, as one string."""
    return "".join(letter for letter in text if letter.isdigit())


@problem("strings", ("rain", 2), ("go", 3), ("", 4), ("x", 1), ("ab", 0))
def echo_with_dashes(word, times):
    """Return the word repeated `times` times with dashes between the repeats."""
    return "-".join([word] * times)


@problem("strings", ("paper.txt",), ("archive.tar.gz",), ("README",), ("a.b",), (".hidden",))
def file_ending(name):
    """Return what follows the last dot of a file name, or an empty string if it has no dot."""
    return name.rsplit(".", 1)[1] if "." in name else ""


@problem("strings", ("The Cat sat",), ("no",), ("ABC",), ("",), ("one Two THREE",))
def capital_words(text):
    """Return how many words of the text begin with a capital letter."""
    return sum(1 for word in text.split() if word[0].isupper())


@problem("strings", ("hello", 7), ("hi", 2), ("tree", 9), ("", 1), ("garden", 6))
def fits_on_sign(text, width):
    """Return True if the text with one star at each end has no more than `width` letters."""
    return len(text) + 2 <= width


@problem("strings", ("kitten", "sitting"), ("abc", "abd"), ("", "a"), ("same", "same"), ("xyz", "abc"))
def same_start(first, second):
    """Return how many letters the two words have in common at their beginning."""
    count = 0
    for a, b in zip(first, second):
        if a != b:
            break
        count += 1
    return count


@problem("strings", ("lemon",), ("a",), ("",), ("kiwi",), ("12345",))
def frame_word(word):
    """Return the word between square brackets, with its length and a colon before it inside the brackets."""
    return f"[{len(word)}:{word}]"


@problem("strings", ("abcdef",), ("ab",), ("a",), ("",), ("12345",))
def swap_halves(text):
    """Return the second half of the text followed by its first half; a middle letter belongs to the second half."""
    middle = len(text) // 2
    return text[middle:] + text[:middle]


@problem("strings", ("I like  tea", 2), ("one two three", 0), ("word", 1), ("", 3), ("a b c d e", 4))
def words_after(text, count):
    """Return the words of the text without the first `count` words, joined by one space."""
    return " ".join(text.split()[count:])


@problem("strings", ("Oak",), ("birch",), ("elm tree",), ("",), ("ASH",))
def hashtag(name):
    """Return a hashtag: a number sign, then the name in small letters without spaces."""
    return "#" + name.lower().replace(" ", "")


@problem("strings", ("hello there", "e"), ("abc", "z"), ("", "a"), ("aaa", "a"), ("Mississippi", "s"))
def positions_of(text, letter):
    """Return the list of the positions (from 0) at which the letter stands in the text."""
    return [position for position, other in enumerate(text) if other == letter]


@problem("strings", ("apple", "pear"), ("fig", "date"), ("kiwi", "plum"), ("", "a"), ("melon", "lemon"))
def longer_first(a, b):
    """Return both words joined by a plus sign, the longer one first; with equal lengths keep the given order."""
    return f"{a}+{b}" if len(a) >= len(b) else f"{b}+{a}"


@problem("strings", ("go left", 1), ("stay", 0), ("up down up", 2), ("a b", 5), ("x y z", 1))
def word_at(text, index):
    """Return the word at the index (from 0), or a question mark if there are too few words."""
    words = text.split()
    return words[index] if index < len(words) else "?"


# --- dictionaries -------------------------------------------------------------------------------------------------------


@problem("dictionaries", ({"nut": 3, "bolt": 0}, "nut"), ({}, "nut"), ({"a": 1}, "a"), ({"b": 0}, "b"), ({"c": 9, "d": 2}, "d"))
def in_stock(stock, item):
    """Return True if the stock (name -> number) holds at least one of the item."""
    return stock.get(item, 0) > 0


@problem("dictionaries", ({"tea": 2, "bun": 3},), ({},), ({"a": 10},), ({"x": 0, "y": 0},), ({"p": 4, "q": 1, "r": 6},))
def order_size(order):
    """Return how many pieces an order (name -> number) has in all."""
    return sum(order.values())


@problem("dictionaries", ({"a": 5, "b": 2}, 3), ({}, 1), ({"x": 3}, 3), ({"m": 9, "n": 8, "o": 1}, 8), ({"q": 0}, 0))
def names_from(points, least):
    """Return the names with at least this many points, in alphabetical order."""
    return sorted(name for name, value in points.items() if value >= least)


@problem(
    "dictionaries", ({"pen": 2}, "pen", 3), ({}, "cup", 1), ({"a": 1, "b": 1}, "b", 0), ({"x": 5}, "y", 2), ({"k": 7}, "k", 1)
)
def add_to_cart(cart, item, count):
    """Return a new cart (name -> number) in which the number of the item is larger by `count`; the old cart stays as it is."""
    result = dict(cart)
    result[item] = result.get(item, 0) + count
    return result


@problem(
    "dictionaries",
    ({"tea": 3, "pie": 5}, ["tea", "tea"]),
    ({"a": 1}, []),
    ({"a": 2, "b": 4}, ["b", "a"]),
    ({"x": 9}, ["x"]),
    ({"m": 1, "n": 2}, ["n", "q"]),
)
def menu_total(menu, chosen):
    """Return the sum of the prices of the chosen dishes; a dish that is not on the menu costs 0."""
    return sum(menu.get(dish, 0) for dish in chosen)


@problem(
    "dictionaries", ({"ann": 3, "bob": 5}, "cy"), ({}, "di"), ({"ed": 1}, "ed"), ({"fay": 2, "gus": 2}, "gus"), ({"h": 0}, "i")
)
def vote_for(votes, name):
    """Return how many votes the name has after getting one more."""
    return votes.get(name, 0) + 1


@problem("dictionaries", ({"a": 1, "b": None},), ({},), ({"x": None},), ({"k": 0, "l": "", "m": None},), ({"p": 4, "q": 5},))
def filled_fields(form):
    """Return the names of the fields of a form that are not None, in alphabetical order."""
    return sorted(name for name, value in form.items() if value is not None)


@problem("dictionaries", (["red", "blue", "red"],), ([],), (["a"],), (["x", "x", "x"],), (["p", "q", "p", "q"],))
def last_seen(colours):
    """Return a dictionary that tells, for each colour, its last position in the list (from 0)."""
    return {colour: position for position, colour in enumerate(colours)}


@problem(
    "dictionaries",
    ({"mon": 3, "tue": 7}, {"mon": 1}),
    ({}, {}),
    ({"a": 2}, {"b": 5}),
    ({"x": 1, "y": 1}, {"y": 4, "z": 2}),
    ({}, {"q": 9}),
)
def larger_of_both(first, second):
    """Return a dictionary with the names of both, each with the larger of its values (a missing value counts as 0)."""
    return {name: max(first.get(name, 0), second.get(name, 0)) for name in {**first, **second}}


@problem(
    "dictionaries",
    ({"ann": 7, "bob": 9},),
    ({"x": 1},),
    ({"a": 2, "b": 2},),
    ({"p": 0, "q": 5, "r": 4},),
    ({"z": 3, "y": 3, "w": 1},),
)
def winner_name(scores):
    """Return the name with the highest score; of equal scores the name that comes first in the alphabet."""
    best = max(scores.values())
    return min(name for name, score in scores.items() if score == best)


@problem("dictionaries", ({"a": 2, "b": 3}, 2), ({}, 5), ({"x": 0}, 7), ({"m": 1, "n": 4}, 10), ({"q": 5}, 0))
def scale_recipe(recipe, factor):
    """Return the recipe (name -> grams) for `factor` times as many people."""
    return {name: grams * factor for name, grams in recipe.items()}


@problem(
    "dictionaries",
    ({"a": "x", "b": "y"}, ["a", "c"]),
    ({}, ["k"]),
    ({"p": "1"}, ["p", "p"]),
    ({"m": "n"}, []),
    ({"s": "t", "u": "v"}, ["u", "s"]),
)
def translate_all(words, text):
    """Return the list of the translations of the text's words; a word that is not in the dictionary stays as it is."""
    return [words.get(word, word) for word in text]


@problem("dictionaries", ({"tea": 0, "bun": 2},), ({},), ({"a": 1, "b": 3},), ({"x": 0, "y": 0},), ({"p": 5, "q": 0, "r": 0},))
def sold_out(stock):
    """Return how many of the goods in the stock (name -> number) are sold out."""
    return list(stock.values()).count(0)


@problem(
    "dictionaries",
    ([("a", 1), ("b", 2), ("a", 5)],),
    ([],),
    ([("x", 3)],),
    ([("p", 1), ("p", 1)],),
    ([("m", 4), ("n", 0), ("m", -4)],),
)
def balance_by_name(payments):
    """Return a dictionary with the sum of the payments of each name; `payments` is a list of (name, amount)."""
    balance = {}
    for name, amount in payments:
        balance[name] = balance.get(name, 0) + amount
    return balance


@problem(
    "dictionaries", ({"a": 3, "b": 8, "c": 5}, 5), ({}, 2), ({"x": 1}, 1), ({"p": 10, "q": 20}, 15), ({"m": 0, "n": -1}, 0)
)
def split_by_limit(levels, limit):
    """Return two lists of names in alphabetical order: those with a value up to the limit, and those above it."""
    low = sorted(name for name, value in levels.items() if value <= limit)
    high = sorted(name for name, value in levels.items() if value > limit)
    return [low, high]


@problem(
    "dictionaries",
    ({"home": "1 Elm St"}, "home", "work"),
    ({}, "a", "b"),
    ({"x": 4, "y": 5}, "x", "z"),
    ({"k": 0}, "j", "l"),
    ({"p": 1, "q": 2}, "q", "r"),
)
def rename_key(record, old, new):
    """Return a new dictionary in which the key `old` is called `new`; without such a key it is a plain copy."""
    return {new if key == old else key: value for key, value in record.items()}


# --- conditions ---------------------------------------------------------------------------------------------------------


@problem("conditions", (35,), (20,), (5,), (-3,), (30,), (10,))
def jacket_for(temperature):
    """Return "none" from 20 degrees on, "light" from 10 degrees on, and "warm" below that."""
    if temperature >= 20:
        return "none"
    return "light" if temperature >= 10 else "warm"


@problem("conditions", (3, 1), (1, 3), (2, 2), (0, 0), (5, 4))
def match_points(ours, theirs):
    """Return 3 if we scored more goals than they, 1 if both scored the same, otherwise 0."""
    if ours > theirs:
        return 3
    return 1 if ours == theirs else 0


@problem("conditions", (4,), (12,), (70,), (18,), (65,), (3,))
def ticket_price(age):
    """Return the price of a museum ticket: 0 below 6 years, 5 below 18 years and from 65 years on, otherwise 9."""
    if age < 6:
        return 0
    return 5 if age < 18 or age >= 65 else 9


@problem("conditions", ("red",), ("green",), ("amber",), ("blue",), ("",))
def traffic_action(light):
    """Return "stop" for red, "go" for green, "wait" for amber and "unknown" for anything else."""
    return {"red": "stop", "green": "go", "amber": "wait"}.get(light, "unknown")


@problem("conditions", (True, 5), (False, 5), (True, 0), (False, 12), (True, 20))
def delivery_cost(member, weight):
    """Return the cost of a delivery: members pay nothing up to 10 kilos, everybody else and above that it is the weight."""
    return 0 if member and weight <= 10 else weight


@problem("conditions", (8, 30), (12, 0), (17, 59), (18, 0), (6, 15))
def shop_is_open(hour, minute):
    """Return True from 8:30 until before 18:00, otherwise False."""
    return (8, 30) <= (hour, minute) < (18, 0)


@problem("conditions", (5, 5), (5, 9), (9, 5), (0, 1), (100, 99))
def compare_sign(a, b):
    """Return "<", "=" or ">" to stand between the numbers a and b."""
    if a == b:
        return "="
    return "<" if a < b else ">"


@problem("conditions", (49,), (50,), (79,), (95,), (0,))
def battery_icon(percent):
    """Return "low" below 50 percent, "ok" below 80 percent, otherwise "full"."""
    return "low" if percent < 50 else "ok" if percent < 80 else "full"


@problem("conditions", ("north", "left"), ("north", "right"), ("east", "left"), ("west", "right"), ("south", "left"))
def turn(direction, side):
    """Return the direction (north, east, south or west) after a quarter turn to the left or to the right."""
    order = ["north", "east", "south", "west"]
    step = 1 if side == "right" else -1
    return order[(order.index(direction) + step) % 4]


@problem("conditions", (12, True), (12, False), (25, True), (8, False), (30, False))
def screen_minutes(age, homework_done):
    """Return the minutes of screen time: 60 from 12 years on, otherwise 30, and 20 less if the homework is not done."""
    minutes = 60 if age >= 12 else 30
    return minutes if homework_done else minutes - 20


@problem("conditions", ("abc12345",), ("short1",), ("longenough",), ("12345678",), ("a1b2c3d4e5",))
def password_ok(password):
    """Return True if the password has at least 8 letters or digits in all and at least one of them is a digit."""
    return len(password) >= 8 and any(letter.isdigit() for letter in password)


@problem("conditions", (3, 4, 12), (0, 5, 9), (10, 20, 15), (7, 7, 7), (1, 8, 0))
def keep_inside(low, high, value):
    """Return the value, moved to `low` if it is smaller than that, and to `high` if it is larger than that."""
    if value < low:
        return low
    return high if value > high else value


@problem("conditions", ("rock", "paper"), ("paper", "rock"), ("rock", "rock"), ("scissors", "paper"), ("scissors", "rock"))
def round_winner(first, second):
    """Return 1 or 2 for the player who wins a round of rock, paper, scissors, or 0 for a draw."""
    beats = {"rock": "scissors", "paper": "rock", "scissors": "paper"}
    if first == second:
        return 0
    return 1 if beats[first] == second else 2


@problem("conditions", (0,), (1,), (2,), (11,), (30,))
def apples_text(count):
    """Return "no apples", "1 apple" or the number followed by " apples"."""
    if count == 0:
        return "no apples"
    return "1 apple" if count == 1 else f"{count} apples"


@problem("conditions", ("sat", False), ("sun", False), ("mon", False), ("fri", True), ("sun", True))
def alarm_time(day, holiday):
    """Return when the alarm rings: "off" on a holiday, "9:00" on "sat" and "sun", otherwise "6:30"."""
    if holiday:
        return "off"
    return "9:00" if day in ("sat", "sun") else "6:30"


@problem("conditions", (100, 0), (100, 100), (50, 60), (0, 10), (75, 25))
def account_state(balance, charge):
    """Return "ok" if money is left after the charge, "empty" if nothing is left, and "refused" if there is too little."""
    rest = balance - charge
    return "ok" if rest > 0 else "empty" if rest == 0 else "refused"


# --- loops --------------------------------------------------------------------------------------------------------------


@problem("loops", (100, 10, 130), (5, 5, 5), (0, 3, 10), (50, 100, 60), (1, 1, 4))
def weeks_to_save(start, per_week, goal):
    """Return how many weeks it takes until the savings are at least the goal."""
    weeks = 0
    while start < goal:
        start += per_week
        weeks += 1
    return weeks


@problem("loops", (16,), (1,), (10,), (100,), (3,))
def fold_count(length):
    """Return how often a ribbon can be cut in half (whole centimetres, rounded down) until its length is 1."""
    count = 0
    while length > 1:
        length //= 2
        count += 1
    return count


@problem("loops", (10, 3), (6, 2), (5, 5), (1, 4), (9, 1))
def countdown_by(start, step):
    """Return the list of the numbers from `start` down by `step`, as long as they are above 0."""
    return list(range(start, 0, -step))


@problem("loops", ([5, 5, 5], 12), ([20], 12), ([], 3), ([1, 2, 3], 6), ([4, 4, 4, 4], 8))
def loads_until_full(loads, capacity):
    """Return how many of the loads, taken in order, fit on a truck before the next one would be too much."""
    total = count = 0
    for load in loads:
        if total + load > capacity:
            break
        total += load
        count += 1
    return count


@problem("loops", (3,), (1,), (0,), (5,), (2,))
def staircase(steps):
    """Return a list of strings: "#" once, then twice, up to `steps` times."""
    return ["#" * width for width in range(1, steps + 1)]


@problem("loops", ("UUDU",), ("",), ("DDD",), ("UDUD",), ("UUUUU",))
def lift_floor(moves):
    """Return the floor of a lift that starts on floor 0 after the moves: U is one up, D is one down but never below 0."""
    floor = 0
    for move in moves:
        floor = floor + 1 if move == "U" else max(0, floor - 1)
    return floor


@problem("loops", ([1, -1, 2], 3), ([], 4), ([-5, 3], 2), ([4, -1, -1], 0), ([-1, -1, 10, -3], 1))
def water_level(changes, level):
    """Return the water level of a bath after the changes, one after the other; it never falls below 0 nor rises above 10."""
    for change in changes:
        level = min(10, max(0, level + change))
    return level


@problem("loops", (2, 4), (1, 5), (3, 0), (5, 2), (10, 1))
def plant_heights(start, weeks):
    """Return the heights of a plant in each of the weeks: it begins with `start` and grows by 1 more each week (1, 2, 3 ...)."""
    heights = []
    for week in range(weeks):
        start += week + 1
        heights.append(start)
    return heights


@problem("loops", ([3, 7, 2], 7), ([1, 1], 5), ([], 1), ([9, 9], 9), ([4, 5, 6, 7], 6))
def tries_until(guesses, secret):
    """Return how many guesses were made until the secret was guessed (that guess included), or -1 if it never was."""
    for number, guess in enumerate(guesses, start=1):
        if guess == secret:
            return number
    return -1


@problem("loops", (1, 10), (5, 6), (0, 0), (3, 12), (7, 7))
def odd_house_sum(first, last):
    """Return the sum of all odd house numbers from `first` to `last`, both included."""
    return sum(number for number in range(first, last + 1) if number % 2)


@problem("loops", (5, 2), (3, 3), (0, 4), (4, 0), (2, 7))
def bounce_heights(height, bounces):
    """Return the list of the heights of a ball that loses 1 at each bounce, as long as the height is above 0."""
    heights = []
    for _ in range(bounces):
        height -= 1
        if height <= 0:
            break
        heights.append(height)
    return heights


@problem("loops", ("aabbb",), ("abc",), ("",), ("zzzz",), ("abbba",))
def longest_streak(results):
    """Return the length of the longest run of equal letters in a row; an empty text gives 0."""
    best = current = 0
    previous = None
    for result in results:
        current = current + 1 if result == previous else 1
        best = max(best, current)
        previous = result
    return best


@problem("loops", (20, 6), (7, 7), (5, 10), (0, 3), (19, 4))
def passengers_waiting(people, seats):
    """Return a list of how many people still wait after each bus of `seats` seats, until nobody waits."""
    waiting = []
    while people > 0:
        people = max(0, people - seats)
        waiting.append(people)
    return waiting


@problem("loops", ([2, 3], 4), ([1], 3), ([5, 1, 1], 7), ([4, 4], 0), ([2, 2, 2], 5))
def light_at(durations, second):
    """Lights shine one after the other, again and again, for these durations. Return the index of the light that shines in the given second (counted from 0)."""
    second %= sum(durations)
    for index, duration in enumerate(durations):
        if second < duration:
            return index
        second -= duration


@problem("loops", (3, 2), (1, 1), (0, 5), (2, 4), (4, 0))
def seat_names(rows, seats):
    """Return the names of all seats, row by row: the row as a letter from A, then the seat's number from 1."""
    return [f"{chr(ord('A') + row)}{seat}" for row in range(rows) for seat in range(1, seats + 1)]


@problem("loops", ([10, 20, 30], 25), ([], 5), ([4, 4], 4), ([1, 2, 3, 4], 3), ([50], 10))
def first_above(values, limit):
    """Return the first value above the limit, or None if there is none."""
    for value in values:
        if value > limit:
            return value
    return None


# --- parsing ------------------------------------------------------------------------------------------------------------


@problem("parsing", ("3x apple",), ("12x egg",), ("1x red pen",), ("0x cup",), ("7x a",))
def parse_order(line):
    """Return the name and the number of an order line such as "3x apple", as a tuple (name, number)."""
    count, name = line.split("x ", 1)
    return name, int(count)


@problem("parsing", ("a=1;b=2",), ("x=10",), ("",), ("k=0;l=-4",), ("p=7;q=8;r=9",))
def parse_settings(text):
    """Return a dictionary from a text such as "a=1;b=2", with the values as whole numbers; an empty text gives {}."""
    return {part.split("=")[0]: int(part.split("=")[1]) for part in text.split(";") if part}


@problem("parsing", ("07:45",), ("00:00",), ("23:59",), ("12:30",), ("01:05",))
def minutes_of_day(clock):
    """Return how many minutes after midnight a time such as "07:45" is."""
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)


@problem("parsing", ("2024-05-17",), ("1999-12-31",), ("2000-01-01",), ("2010-10-10",), ("1987-03-09",))
def day_first(date):
    """Return a date such as "2024-05-17" as "17.05.2024"."""
    year, month, day = date.split("-")
    return f"{day}.{month}.{year}"


@problem("parsing", ("4,8,15",), ("",), ("7",), ("1,,2",), ("10, 20",))
def sum_of_csv(text):
    """Return the sum of the whole numbers in a text, separated by commas; empty places count as 0."""
    return sum(int(part) for part in text.split(",") if part.strip())


@problem("parsing", ("ERROR disk full",), ("INFO started",), ("WARN",), ("ERROR net down",), ("DEBUG x y z",))
def log_message(line):
    """Return what follows the first word of a log line, or an empty string if there is only one word."""
    return line.partition(" ")[2]


@problem("parsing", ("B7",), ("A1",), ("H8",), ("C12",), ("D3",))
def board_square(name):
    """Return the column and the row of a square such as "B7" as a tuple of numbers counted from 0: (1, 6)."""
    return ord(name[0]) - ord("A"), int(name[1:]) - 1


@problem("parsing", ("12 kg",), ("3 g",), ("0 kg",), ("450 g",), ("7 kg",))
def grams_of(text):
    """Return the weight in grams of a text such as "12 kg" or "3 g"."""
    number, unit = text.split()
    return int(number) * 1000 if unit == "kg" else int(number)


@problem("parsing", ("ann:3, bob:5",), ("x:1",), ("",), ("p:0, q:0",), ("c:10, d:2, e:30",))
def best_of(text):
    """Return the name with the most points in a text such as "ann:3, bob:5" (the first of equals), or None for an empty text."""
    entries = [part.split(":") for part in text.split(", ") if part]
    return max(entries, key=lambda entry: int(entry[1]))[0] if entries else None


@problem("parsing", ("up 3 down 1",), ("up 2",), ("",), ("down 4 up 1",), ("up 1 up 1 down 5",))
def depth_after(commands):
    """Return the sum of the commands in a text such as "up 3 down 1": "up" adds the number after it, "down" takes it away."""
    words = commands.split()
    return sum(int(n) if word == "up" else -int(n) for word, n in zip(words[::2], words[1::2]))


@problem("parsing", ("<b>hi</b>",), ("plain",), ("<i></i>",), ("a<br>b",), ("x > y",))
def has_tag(text):
    """Return True if a "<" stands somewhere in the text and a ">" somewhere after it."""
    start = text.find("<")
    return start >= 0 and text.find(">", start) > start


@problem("parsing", ("user@site.org",), ("a@b.c",), ("me@home",), ("x.y@z.net",), ("q@mail.co",))
def mail_host(address):
    """Return the part of a mail address after the @ sign and before the first dot that follows it."""
    return address.split("@")[1].split(".")[0]


@problem("parsing", ("1-4,9",), ("7",), ("2-2",), ("1-3,5-6",), ("10,12-13",))
def expand_pages(text):
    """Return the list of the page numbers in a text such as "1-4,9"."""
    pages = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        pages.extend(range(int(first), int(last or first) + 1))
    return pages


@problem("parsing", ("+5",), ("-3",), ("0",), ("+12",), ("-100",))
def signed_value(text):
    """Return the number of a text such as "+5" or "-3", doubled if it has a minus sign."""
    value = int(text)
    return value * 2 if text.startswith("-") else value


@problem("parsing", ("milk 2.50",), ("bread 1.05",), ("gum 0.10",), ("tv 399.99",), ("pen 3.00",))
def price_in_cents(line):
    """Return the price at the end of a line such as "milk 2.50" as a whole number of cents."""
    whole, cents = line.split()[-1].split(".")
    return int(whole) * 100 + int(cents)


# --- records ------------------------------------------------------------------------------------------------------------


@problem("records", ([("ann", 3), ("bob", 7)], 5), ([], 1), ([("x", 5)], 5), ([("p", 9), ("q", 8)], 2), ([("m", 0)], 0))
def taller_than(people, height):
    """Return the names of the people, given as (name, height), who are taller than this height, in the given order."""
    return [name for name, size in people if size > height]


@problem(
    "records",
    ([("tea", 2, 3), ("bun", 1, 4)],),
    ([],),
    ([("a", 0, 9)],),
    ([("x", 5, 5)],),
    ([("p", 1, 1), ("q", 2, 2), ("r", 3, 3)],),
)
def invoice_total(lines):
    """Return the total of an invoice whose lines are (name, count, price)."""
    return sum(count * price for _, count, price in lines)


@problem("records", ([("a", 5), ("b", 2)],), ([("x", 1)],), ([],), ([("p", 3), ("q", 3)],), ([("m", 9), ("n", 4), ("o", 4)],))
def cheapest_name(goods):
    """Return the name of the cheapest of the goods, given as (name, price); the first of equals, None for an empty list."""
    return min(goods, key=lambda entry: entry[1])[0] if goods else None


@problem(
    "records",
    ([{"name": "ann", "age": 20}, {"name": "bob", "age": 15}],),
    ([],),
    ([{"name": "x", "age": 18}],),
    ([{"name": "p", "age": 17}],),
    ([{"name": "m", "age": 40}, {"name": "n", "age": 30}],),
)
def adult_names(people):
    """Return the names of the people (dictionaries with "name" and "age") who are at least 18, in the given order."""
    return [person["name"] for person in people if person["age"] >= 18]


@problem("records", ([(1, 4), (6, 7)],), ([],), ([(3, 3)],), ([(0, 10)],), ([(2, 5), (5, 9), (9, 10)],))
def time_worked(shifts):
    """Return the hours of all shifts together; each shift is (start, end)."""
    return sum(end - start for start, end in shifts)


@problem(
    "records",
    ([("a", "x"), ("b", "y")], "x"),
    ([], "x"),
    ([("c", "z"), ("d", "z")], "z"),
    ([("e", "w")], "v"),
    ([("f", "u"), ("g", "t"), ("h", "u")], "u"),
)
def team_members(players, team):
    """Return the names of the players, given as (name, team), of one team, in alphabetical order."""
    return sorted(name for name, other in players if other == team)


@problem("records", ([("b", 2), ("a", 2), ("c", 9)],), ([],), ([("x", 1)],), ([("p", 3), ("q", 5)],), ([("n", 0), ("m", 0)],))
def podium(results):
    """Return the names of the (name, points) results, most points first; equal points in alphabetical order."""
    return [name for name, _ in sorted(results, key=lambda entry: (-entry[1], entry[0]))]


@problem(
    "records",
    ([("mon", 3), ("tue", 0), ("wed", 8)],),
    ([],),
    ([("fri", 0)],),
    ([("sat", 1)],),
    ([("a", 0), ("b", 2), ("c", 0)],),
)
def dry_days(rain):
    """Return how many of the days, given as (day, millimetres of rain), had no rain."""
    return sum(1 for _, millimetres in rain if millimetres == 0)


@problem(
    "records",
    ([{"id": 1, "ok": True}, {"id": 2, "ok": False}],),
    ([],),
    ([{"id": 7, "ok": False}],),
    ([{"id": 3, "ok": True}],),
    ([{"id": 9, "ok": False}, {"id": 4, "ok": False}],),
)
def failed_ids(checks):
    """Return the ids of the checks (dictionaries with "id" and "ok") that are not ok, smallest first."""
    return sorted(check["id"] for check in checks if not check["ok"])


@problem(
    "records",
    ([("a", 1), ("b", 2)], "b", 9),
    ([], "x", 1),
    ([("p", 5)], "p", 0),
    ([("m", 1), ("n", 1)], "q", 7),
    ([("k", 3), ("l", 4)], "k", 4),
)
def update_price(goods, name, price):
    """Return the list of (name, price) with the new price for this name; the other entries stay as they are."""
    return [(other, price if other == name else old) for other, old in goods]


@problem("records", ([(0, 0), (3, 1)],), ([(5, 5)],), ([(1, 9), (4, 2), (6, 0)],), ([(-2, 0), (2, 0)],), ([(7, 3), (7, 8)],))
def map_width(points):
    """Return the distance from the leftmost to the rightmost of the (x, y) points along x."""
    xs = [x for x, _ in points]
    return max(xs) - min(xs)


@problem(
    "records", ([("ann", [5, 7]), ("bob", [])],), ([],), ([("x", [1])],), ([("p", [2, 2, 2])],), ([("m", []), ("n", [9, 1])],)
)
def points_each(players):
    """Return a list of (name, sum of points) from a list of (name, list of points)."""
    return [(name, sum(points)) for name, points in players]


@problem(
    "records",
    ([("a", 10), ("b", 30)], 20),
    ([], 5),
    ([("x", 5)], 10),
    ([("p", 8), ("q", 9)], 8),
    ([("m", 1), ("n", 2), ("o", 3)], 2),
)
def late_guests(arrivals, start):
    """Return how late each late guest came, as a dictionary name -> minutes; `arrivals` holds (name, minute)."""
    return {name: minute - start for name, minute in arrivals if minute > start}


@problem("records", ([(2, 3), (4, 1)],), ([],), ([(1, 1)],), ([(5, 2), (2, 5)],), ([(3, 3), (1, 2), (0, 9)],))
def rooms_area(rooms):
    """Return the area of the largest of the rooms, given as (length, width), or 0 without rooms."""
    return max((length * width for length, width in rooms), default=0)


@problem(
    "records",
    ([("a", 3), ("b", 5), ("a", 9)], "a"),
    ([], "q"),
    ([("x", 1)], "y"),
    ([("p", 2), ("p", 4)], "p"),
    ([("m", 7), ("n", 8)], "n"),
)
def latest_value(readings, sensor):
    """Return the last value of a sensor in a list of (sensor, value), or None if it has none."""
    for name, value in reversed(readings):
        if name == sensor:
            return value
    return None


# --- text formatting ----------------------------------------------------------------------------------------------------


@problem("text formatting", ("tea", 3), ("bun", 12), ("x", 0), ("coffee", 100), ("a b", 7))
def price_tag(name, price):
    """Return a tag with the name, a colon, a space, the price and a dollar sign at the end."""
    return f"{name}: {price}$"


@problem("text formatting", (["ann", "bob"],), (["x"],), ([],), (["a", "b", "c"],), (["p", "q", "r", "s"],))
def guest_list(names):
    """Return the names joined by commas with " and " before the last one; no names give "nobody"."""
    if not names:
        return "nobody"
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


@problem("text formatting", (125,), (60,), (59,), (0,), (600,))
def clock_text(seconds):
    """Return minutes and seconds as a text such as "2:05": the seconds always with two digits."""
    return f"{seconds // 60}:{seconds % 60:02d}"


@problem("text formatting", (7, 3), (42, 5), (0, 1), (123, 2), (9, 4))
def pad_number(number, width):
    """Return the number as text with zeros in front, so that it has at least `width` digits."""
    return str(number).zfill(width)


@problem("text formatting", (3, 5), (0, 4), (5, 5), (1, 1), (2, 8))
def progress_bar(done, total):
    """Return a bar in square brackets: a number sign for each part that is done, and a dot for each other one."""
    return "[" + "#" * done + "." * (total - done) + "]"


@problem("text formatting", (["milk", "eggs"],), ([],), (["tea"],), (["a", "b", "c"],), (["x y"],))
def numbered_lines(items):
    """Return one text with a line for each item, such as "1. milk", joined by line breaks."""
    return "\n".join(f"{number}. {item}" for number, item in enumerate(items, start=1))


@problem("text formatting", ("hi", 6), ("word", 4), ("", 3), ("a", 2), ("left", 9))
def right_align(text, width):
    """Return the text with dots in front, so that it is `width` letters long; a longer text stays as it is."""
    return text.rjust(width, ".")


@problem("text formatting", (0.5,), (0.25,), (1.0,), (0.0,), (0.99,))
def as_percent(share):
    """Return a share such as 0.5 as a text in whole percent, such as "50%"."""
    return f"{round(share * 100)}%"


@problem("text formatting", ({"a": 1, "b": 2},), ({},), ({"x": 9},), ({"n": 0, "m": 5},), ({"q": -1},))
def query_text(values):
    """Return the dictionary as a text such as "a=1&b=2", with the names in alphabetical order."""
    return "&".join(f"{name}={values[name]}" for name in sorted(values))


@problem("text formatting", ("Main St", 5), ("Elm", 12), ("A", 0), ("High Road", 77), ("Oak Way", 101))
def address_line(street, number):
    """Return the number, a space, and the street in capital letters."""
    return f"{number} {street.upper()}"


@problem("text formatting", (4,), (1,), (0,), (7,), (2,))
def dotted_line(length):
    """Return a line of `length` dashes with a plus sign at each end."""
    return "+" + "-" * length + "+"


@problem("text formatting", ([1, 2, 3],), ([],), ([10],), ([5, 5],), ([0, -1, 2, 8],))
def sum_text(numbers):
    """Return a text such as "1 + 2 + 3 = 6"; an empty list gives "0 = 0"."""
    return f"{' + '.join(map(str, numbers)) or '0'} = {sum(numbers)}"


@problem("text formatting", (25, 12), (1, 1), (31, 10), (9, 3), (15, 7))
def date_label(day, month):
    """Return the day and the month with two digits each and a slash between them, such as "25/12"."""
    return f"{day:02d}/{month:02d}"


@problem("text formatting", ("secret", 2), ("abc", 0), ("pin", 3), ("", 1), ("password", 4))
def hide_text(text, shown):
    """Return the text with only its first `shown` letters visible and a star for each of the others."""
    return text[:shown] + "*" * (len(text) - shown)


@problem("text formatting", (["a", "bbb"],), ([],), (["xy"],), (["one", "three", "to"],), (["", "q"],))
def pad_to_longest(words):
    """Return the words, each filled up with underscores at its end to the length of the longest one."""
    width = max(map(len, words), default=0)
    return [word.ljust(width, "_") for word in words]


# --- checks and sets ----------------------------------------------------------------------------------------------------


@problem("checks", (["a", "b"], ["b", "c"]), ([], ["x"]), (["p"], ["p"]), (["m", "n", "o"], []), (["q", "r"], ["r", "q"]))
def missing_items(packed, needed):
    """Return the needed items that are not packed, in alphabetical order."""
    return sorted(set(needed) - set(packed))


@problem("checks", (["ann", "bob"], ["bob", "cy"]), ([], []), (["x"], ["y"]), (["p", "q"], ["q", "p"]), (["m"], []))
def only_in_one(first, second):
    """Return the names that are in exactly one of the two lists, in alphabetical order."""
    return sorted(set(first) ^ set(second))


@problem("checks", ([1, 2, 2],), ([],), ([3],), ([4, 4, 4],), ([5, 6, 7, 5, 6],))
def double_bookings(rooms):
    """Return how many entries of the list come again after they were there before (each repeat counts)."""
    return len(rooms) - len(set(rooms))


@problem("checks", ([1, 2, 3],), ([3, 2],), ([],), ([5, 5],), ([1, 4, 2],))
def never_falls(levels):
    """Return True if no level is lower than the one before it."""
    return all(earlier <= later for earlier, later in zip(levels, levels[1:]))


@problem("checks", ("AB-123",), ("ab-123",), ("AB123",), ("XY-9",), ("A-1",))
def plate_ok(plate):
    """Return True if a number plate has two capital letters, a dash, and then only digits, at least one."""
    return plate[:2].isalpha() and plate[:2].isupper() and plate[2:3] == "-" and plate[3:].isdigit()


@problem("checks", ([1, 0], [1, 0]), ([1], [2]), ([], []), ([1, 2, 3], [1, 5, 3]), ([7, 7], [8, 8]))
def matching_places(guess, code):
    """Return how many places of the two equally long lists hold the same value."""
    return sum(a == b for a, b in zip(guess, code))


@problem(
    "checks", (["r", "g", "r"], ["r", "g"]), ([], ["x"]), (["b"], ["r", "g"]), (["a", "a"], ["a"]), (["p", "q", "s"], ["s"])
)
def not_allowed(colours, allowed):
    """Return how many of the colours are not among the allowed ones."""
    return sum(1 for colour in colours if colour not in allowed)


@problem("checks", (9, 17, 12, 14), (9, 12, 12, 14), (8, 10, 9, 11), (1, 2, 3, 4), (0, 24, 5, 6))
def meetings_clash(start, end, other_start, other_end):
    """Return True if two meetings overlap; one that begins when the other ends does not."""
    return start < other_end and other_start < end


@problem("checks", ([5, 3], 8), ([5, 3], 9), ([], 0), ([2, 2, 2], 6), ([10], 1))
def exact_change(coins, price):
    """Return "exact", "too much" or "too little" for the sum of the coins against the price."""
    total = sum(coins)
    if total == price:
        return "exact"
    return "too much" if total > price else "too little"


@problem(
    "checks",
    (["a", "b", "c"], "a", "c"),
    (["x", "y"], "y", "x"),
    (["p"], "p", "p"),
    (["m", "n"], "m", "z"),
    (["q", "r", "s"], "r", "s"),
)
def stands_before(queue, first, second):
    """Return True if `first` stands somewhere before `second` in the queue, False otherwise or if one of them is not in it."""
    if first not in queue or second not in queue:
        return False
    return queue.index(first) < queue.index(second)


@problem("checks", ({1, 2}, {2, 3}), (set(), {1}), ({5}, {5}), ({1, 2, 3}, {7}), ({4, 6}, {4, 6, 8}))
def common_share(mine, yours):
    """Return how many numbers both sets have in common, minus how many only the first one has."""
    return len(mine & yours) - len(mine - yours)


@problem("checks", ("k7",), ("7",), ("",), ("key",), ("a1b2",))
def letters_minus_digits(code):
    """Return the number of letters in the code minus the number of digits."""
    return sum(c.isalpha() for c in code) - sum(c.isdigit() for c in code)


@problem("checks", ([3, 3, 3], 2), ([1, 2], 1), ([], 1), ([4, 4], 2), ([5, 5, 6, 6], 2))
def seen_at_least(codes, times):
    """Return the codes that are in the list at least so many times, each one once, smallest first."""
    return sorted(code for code in set(codes) if codes.count(code) >= times)
