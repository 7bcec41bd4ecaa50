#!/usr/bin/env bash
# The packaged models, from first to last: three sizes by distillation, each tuned on labels, calibrated, and exported with 8-bit convolutions.
# Run from the repository's root, command by command rather than at once: it takes days on two cores.
set -euo pipefail

P="python experiments/packaged_model.py --data ../shared/data --set run.precision=bf16-mixed --set run.threads=1"
$P --recipe strong-96 --out runs/first
$P --recipe compact-large --teachers runs/first/detector.safetensors --out runs/large-1
$P --recipe compact --teachers runs/large-1/detector.safetensors --set distillation.views=2 --out runs/default-1
$P --recipe compact-nano --teachers runs/large-1/detector.safetensors --set distillation.views=2 --out runs/nano-1

D=../shared/data/ibug68; L=runs/lists-ibug68
python experiments/cascade_lists.py --data $D --scheme ibug-68 --out $L
T="fewmark train $D --labelled $L/labelled.txt --val $L/held_out.txt --scheme ibug-68 --selection none --set semi.rounds=0 --set model.half=true"
T="$T --set students.compact.n_batches=125 --set run.precision=bf16-mixed --set run.threads=1 --set students.compact"
$T.n_epochs=12 --set students.compact.learning_rate=1e-3 --recipe compact-large --start runs/large-1/detector.safetensors --out runs/large-2
$T.n_epochs=10 --set students.compact.learning_rate=1.5e-3 --recipe compact-large --start runs/large-2/detector.safetensors --out runs/large-3

A="--set distillation.selection=none --set students.compact.n_epochs"
$P --recipe compact --teachers runs/large-1/detector.safetensors --start runs/default-1/detector.safetensors --set distillation.views=2 $A=115 --set students.compact.learning_rate=2.5e-3 --out runs/default-2
$P --recipe compact --teachers runs/large-2/detector.safetensors --start runs/default-2/detector.safetensors --set distillation.views=1 $A=48 --set students.compact.learning_rate=2e-3 --out runs/default-3
$P --recipe compact-nano --teachers runs/large-2/detector.safetensors --start runs/nano-1/detector.safetensors --set distillation.views=1 $A=50 --set students.compact.learning_rate=2.5e-3 --out runs/nano-2
fewmark export runs/large-3/detector.safetensors --out runs/large-3-int8.onnx --int8 --calibrate $D --list $L/held_out.txt
$P --recipe compact-large --merl-rav unlabelled --teachers runs/large-3-int8.onnx --start runs/large-3/detector.safetensors --set distillation.views=3 $A=40 --set students.compact.learning_rate=2e-3 --set distillation.quality_steps=0 --out runs/ibug-68-large
$T.n_epochs=12 --set students.compact.learning_rate=1.5e-3 --recipe compact --start runs/default-3/detector.safetensors --out runs/ibug-68
$T.n_epochs=12 --set students.compact.learning_rate=1.5e-3 --recipe compact-nano --start runs/nano-2/detector.safetensors --out runs/ibug-68-nano

fewmark calibrate runs/ibug-68/detector.safetensors ../shared/data/ibug68 --list runs/lists-ibug68/held_out.txt  # the other two likewise
fewmark export ibug-68 --out src/fewmark/inference/weights/ibug-68-int8.onnx --int8 --calibrate $D --list $L/held_out.txt  # the other two likewise
python experiments/packaged_scores.py --data ../shared/data/ibug68 --json docs/measured/packaged_scores.json
python docs/tables.py
