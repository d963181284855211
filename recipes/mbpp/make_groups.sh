#!/bin/sh
# Ranked groups from MBPP: problems without HumanEval's, two candidates of the student each, the references as teachers.
# usage: recipes/mbpp/make_groups.sh MBPP STUDENT FOLDER   (MBPP: a file, or google-research-datasets/mbpp)
# STUDENT is a checkpoint, or a folder of `trl-rrtf export` with ENGINE=onnx. With TEACHER=CHECKPOINT a stronger model answers
# each problem too, greedily. Interrupted, it goes on where it stopped.
set -e
mkdir -p "$3"
trl-rrtf filter --input "$1" --against humaneval --output "$3/problems.jsonl"
trl-rrtf sample --input "$3/problems.jsonl" --limit "${LIMIT:-220}" --model "$2" --engine "${ENGINE:-transformers}" \
    --num_generations 2 --temperature 0.4 --top_p 1.0 --top_k 50 --max_new_tokens 160 --batch_size 16 \
    --include_reference true --output "$3/candidates.jsonl"
candidates="$3/candidates.jsonl"
if [ -n "$TEACHER" ]; then
    candidates="$3/with_teacher.jsonl"
    trl-rrtf sample --input "$3/candidates.jsonl" --model "$TEACHER" --source teacher --num_generations 1 --temperature 0 \
        --max_new_tokens 160 --batch_size 16 --output "$candidates"
fi
trl-rrtf judge --input "$candidates" --output "$3/judged.jsonl"
trl-rrtf rank --input "$3/judged.jsonl" --output "$3/ranked.jsonl" --card "$3/card" --license cc-by-4.0
