# SPDX-License-Identifier: Apache-2.0
"""Makes what is timed: one random checkpoint of a given shape, and each rival's form of it.

Everything lies in WORK (a directory a shape) and is made once:
  checkpoint/   Hugging Face directory: what PyTorch and Vigil read
  model.onnx    exported with eager attention: sdpa's graph leaves ONNX Runtime's Attention
                fusion nothing to find
  fused.onnx    ONNX Runtime: fused; fused.qint8.onnx, fused.quint8.onnx: its two int8 forms
  openvino-*.xml    OpenVINO; -int8: by nncf, transformer preset, static activations
  ctranslate2-*     CTranslate2
A step is a function; a step whose output exists is skipped.
"""
import json
import os
import random
import shutil
import sys

import workload

LAYERS, HEADS = 6, 12


def say(text):
    print(f"prepare: {text}", file=sys.stderr, flush=True)


def make_checkpoint(directory, dim):
    import torch
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    torch.manual_seed(0)
    config = DistilBertConfig(num_labels=2, dim=dim, hidden_dim=4 * dim, n_layers=LAYERS, n_heads=HEADS)
    model = DistilBertForSequenceClassification(config).eval()
    with torch.no_grad():
        # At its usual initial size the head answers nearly the same to every text, and a
        # wrong engine would agree with a right one.
        model.pre_classifier.weight.mul_(4)
        model.classifier.weight.mul_(16)
    model.save_pretrained(directory)
    with open(f"{directory}/tokenizer_config.json", "w") as out:
        json.dump({"tokenizer_class": "DistilBertTokenizer", "do_lower_case": True}, out)
    if os.path.exists(workload.VOCABULARY):
        shutil.copy(workload.VOCABULARY, f"{directory}/vocab.txt")
    else:
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        with open(f"{directory}/vocab.txt", "w") as out:
            out.writelines(f"{w}\n" for w in special + [f"w{i}" for i in range(config.vocab_size - 5)])


def make_onnx(checkpoint, path):
    import torch
    from transformers import DistilBertForSequenceClassification

    model = DistilBertForSequenceClassification.from_pretrained(checkpoint, attn_implementation="eager").eval()
    ids = torch.randint(1000, 20000, (2, 16))
    axes = {0: "batch", 1: "tokens"}
    torch.onnx.export(
        model, (ids, torch.ones_like(ids)), path, opset_version=17, dynamo=False,
        input_names=["input_ids", "attention_mask"], output_names=["logits"],
        dynamic_axes={"input_ids": axes, "attention_mask": axes})


def make_onnxruntime_fused(onnx_path, path, dim):
    from onnxruntime.transformers import optimizer

    fused = optimizer.optimize_model(onnx_path, "bert", num_heads=HEADS, hidden_size=dim, opt_level=1)
    counts = fused.get_fused_operator_statistics()
    expected = {"Attention": LAYERS, "SkipLayerNormalization": 2 * LAYERS, "BiasGelu": LAYERS}
    found = {name: counts.get(name, 0) for name in expected}
    if found != expected:
        raise SystemExit(f"onnxruntime fused {found}, expected {expected}: it would not be at its best")
    fused.save_model_to_file(path)
    with open(f"{path}.counts.json", "w") as out:
        json.dump({k: v for k, v in counts.items() if v}, out)


def make_onnxruntime_int8(fused_path, path, kind):
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # The optimiser drops value types that the quantiser wants to know.
    quantize_dynamic(
        fused_path, path, weight_type=getattr(QuantType, kind), per_channel=kind == "QInt8",
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT})


def make_openvino(onnx_path, path):
    import openvino

    openvino.save_model(openvino.Core().read_model(onnx_path), path, compress_to_fp16=False)


def make_openvino_int8(fp32_path, path):
    import nncf
    import numpy
    import openvino

    generator = random.Random(1)
    samples = []
    for ids in workload.synthetic_stream(64):
        ids = numpy.array([workload.random_sequence(len(ids), generator)], numpy.int64)
        samples.append({"input_ids": ids, "attention_mask": numpy.ones_like(ids)})
    model = nncf.quantize(
        openvino.Core().read_model(fp32_path), nncf.Dataset(samples),
        model_type=nncf.ModelType.TRANSFORMER, subset_size=len(samples))
    openvino.save_model(model, path, compress_to_fp16=False)


def make_ctranslate2(checkpoint, directory, kind):
    import ctranslate2

    ctranslate2.converters.TransformersConverter(checkpoint).convert(directory, quantization=kind)


def steps(work, dim):
    """(output, function, arguments) in the order of their making"""
    checkpoint, onnx, fused = f"{work}/checkpoint", f"{work}/model.onnx", f"{work}/fused.onnx"
    yield f"{checkpoint}/vocab.txt", make_checkpoint, (checkpoint, dim)
    yield onnx, make_onnx, (checkpoint, onnx)
    yield fused, make_onnxruntime_fused, (onnx, fused, dim)
    for kind in ("QInt8", "QUInt8"):
        path = f"{work}/fused.{kind.lower()}.onnx"
        yield path, make_onnxruntime_int8, (fused, path, kind)
    yield f"{work}/openvino-fp32.xml", make_openvino, (onnx, f"{work}/openvino-fp32.xml")
    yield f"{work}/openvino-int8.xml", make_openvino_int8, (
        f"{work}/openvino-fp32.xml", f"{work}/openvino-int8.xml")
    for kind in ("int8", "float32"):
        directory = f"{work}/ctranslate2-{kind}"
        yield f"{directory}/model.bin", make_ctranslate2, (checkpoint, directory, kind)


def prepare(work, dim):
    os.makedirs(work, exist_ok=True)
    for output, function, arguments in steps(work, dim):
        if not os.path.exists(output):
            say(f"{os.path.relpath(output, work)}")
            function(*arguments)


if __name__ == "__main__":
    prepare(sys.argv[1], int(sys.argv[2]))
