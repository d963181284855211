#!/bin/sh
# Records what the quick start's model writes on the held-out easy problems, for the tests of extraction.
# usage: recipes/data/record_outputs.sh STUDENT   (a checkpoint; ENGINE=onnx for a folder of `trl-rrtf export`)
set -e
folder=$(mktemp -d)
for style in chat paper completion; do
    trl-rrtf sample --input recipes/data/easy_problems.jsonl --where split=heldout --model "$1" --engine "${ENGINE:-transformers}" \
        --num_generations 2 --temperature 0.8 --top_p 1.0 --top_k 50 --max_new_tokens 96 --batch_size 18 --prompt_style "$style" \
        --output "$folder/$style.jsonl"
done
cat "$folder"/*.jsonl > recipes/data/recorded_outputs.jsonl
rm -r "$folder"
