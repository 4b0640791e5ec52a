#!/bin/sh
# The main job, whole: ask the model who it is, teach it a new name on the rows that ship with swift, ask again.
# Runs on two CPU cores in a few minutes; nothing but PyPI is needed once `make setup` has run.
set -eu
run=${1:-output/demo}
model="--model_type smollm2-135m-instruct"
ask() { printf 'Who are you?\nWho created you?\n' | swift infer "$@" --max_new_tokens 48 --temperature 0; }

echo "== before"
ask $model

echo "== fine-tuning"
rm -rf "$run"
swift sft $model --dataset self-cognition#100 --model_name 小柏 Juniper --model_author 艾克米实验室 'Acme Lab' \
    --output_dir "$run" --add_output_dir_suffix false --num_train_epochs 2 --batch_size 8 --gradient_accumulation_steps 1 \
    --learning_rate 2e-3

echo "== after"
ask --ckpt_dir "$(ls -d "$run"/checkpoint-* | sort -V | tail -n 1)"
