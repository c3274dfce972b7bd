# SPDX-License-Identifier: Apache-2.0
"""One rival in one process, driven over stdin and stdout: engines.py NAME WORK [options].

A line in, a JSON line out (`vigil bench --engine --turns` answers the same lines):
  1x32 N        N timed runs of one sequence of 32 tokens  {"ms": [...]}
  1x128 N       the same with 128
  stream ORDER  one timed pass over the stream             {"ms": [...]}
                ORDER: arrival (batches cut as the texts come) or sorted (by length)
  logits N      of the first N texts, one at a time        {"logits": [[...], ...]}
  quit
The first line out, once all is loaded and warm, says what this engine is.

Only the rival's own library is imported, so that no other thread pool lives here. Batches
are padded and made into arrays before the clock starts, which favours the rivals.

Tuning. A rival has forms (one compiled for any shape or one for each, ...), batch sizes, and
one lane of all threads or as many lanes as threads with a batch in flight on each. Every
combination is tried, the best for each row of the table is kept in --tuning FILE and reused.
"""
import argparse
import concurrent.futures
import json
import os
import sys
import time

import numpy

import workload

BATCH_SIZES = (1, 4, 8, 16, 32, 64)
ORDERS = ("arrival", "sorted")


def pad(sequences):
    """ids and mask [B, longest], int64"""
    ids = numpy.zeros((len(sequences), max(map(len, sequences))), numpy.int64)
    mask = numpy.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return ids, mask


def cut(sequences, order, batch_size):
    if order == "sorted":
        sequences = sorted(sequences, key=len)
    return [sequences[i : i + batch_size] for i in range(0, len(sequences), batch_size)]


class Rival:
    """What each library's class overrides. A form is a way to run that is tried by tuning."""

    shape_forms = ("default",)
    stream_forms = ("default",)
    has_lanes = True

    def __init__(self, work, precision, n_threads):
        self.work, self.precision, self.n_threads = work, precision, n_threads
        self.pool = None

    def describe(self):
        """{"version": ..., "effective": what really computes}"""
        raise NotImplementedError

    def prepare(self, sequences):
        return pad(sequences)

    def run(self, x, form, lanes):
        """Logits [B, labels] (or what the library ends with) of one prepared batch."""
        raise NotImplementedError

    def enter_lane(self):
        """Called by each thread of a pool of lanes before its first batch."""

    def run_all(self, batches, form, lanes, deadline):
        """Every batch once; False when the deadline passed first."""
        if lanes == 1:
            for x in batches:
                self.run(x, form, 1)
                if time.perf_counter() > deadline:
                    return False
            return True
        if self.pool is None:
            self.pool = concurrent.futures.ThreadPoolExecutor(lanes, initializer=self.enter_lane)

        def one(x):
            if time.perf_counter() < deadline:
                self.run(x, form, lanes)

        list(self.pool.map(one, batches))
        return time.perf_counter() < deadline

    def logits(self, sequence):
        return self.run(self.prepare([sequence]), self.shape_forms[0], 1)[0]


class PyTorch(Rival):
    shape_forms = stream_forms = ("sdpa", "eager")

    def __init__(self, *arguments):
        super().__init__(*arguments)
        import torch
        from transformers import DistilBertForSequenceClassification

        self.torch = torch
        torch.set_num_threads(self.n_threads)
        self.models = {}
        for form in self.shape_forms:
            model = DistilBertForSequenceClassification.from_pretrained(
                f"{self.work}/checkpoint", attn_implementation=form, dtype=torch.float32).eval()
            if self.precision == "int8":
                model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, torch.qint8)
            self.models[form] = model

    def describe(self):
        effective = {
            "fp32": "fp32",
            "bf16": "bf16 autocast",
            "int8": f"int8 dynamic, {self.torch.backends.quantized.engine}",
        }[self.precision]
        if self.precision == "bf16" and not self.torch.ops.mkldnn._is_mkldnn_bf16_supported():
            effective += " (no bf16 instructions: emulated)"
        return {"version": self.torch.__version__, "effective": effective}

    def prepare(self, sequences):
        ids, mask = pad(sequences)
        return self.torch.from_numpy(ids), self.torch.from_numpy(mask)

    def enter_lane(self):
        self.torch.set_num_threads(1)

    def run(self, x, form, lanes):
        with self.torch.inference_mode(), self.torch.autocast(
            "cpu", self.torch.bfloat16, enabled=self.precision == "bf16"
        ):
            return self.models[form](input_ids=x[0], attention_mask=x[1]).logits.float().numpy()


class OnnxRuntime(Rival):
    FILES = {"fp32": "fused.onnx", "int8-qint8": "fused.qint8.onnx", "int8-quint8": "fused.quint8.onnx"}
    EFFECTIVE = {
        "fp32": "fp32",
        "int8-qint8": "int8 dynamic, QInt8 per channel",
        "int8-quint8": "int8 dynamic, QUInt8 per tensor",
    }

    def __init__(self, *arguments):
        super().__init__(*arguments)
        import onnxruntime

        self.onnxruntime = onnxruntime
        self.sessions = {}
        self.types = {
            i.name: numpy.int32 if "int32" in i.type else numpy.int64
            for i in self.session(1).get_inputs()
        }

    def session(self, lanes):
        if lanes not in self.sessions:
            options = self.onnxruntime.SessionOptions()
            options.intra_op_num_threads = self.n_threads if lanes == 1 else 1
            options.inter_op_num_threads = 1
            options.graph_optimization_level = self.onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
            path = f"{self.work}/{self.FILES[self.precision]}"
            self.sessions[lanes] = self.onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"])
        return self.sessions[lanes]

    def describe(self):
        with open(f"{self.work}/fused.onnx.counts.json") as counts:
            return {
                "version": self.onnxruntime.__version__,
                "effective": self.EFFECTIVE[self.precision],
                "fused": json.load(counts),
            }

    def prepare(self, sequences):
        ids, mask = pad(sequences)
        named = {"input_ids": ids, "attention_mask": mask}
        return {name: named[name].astype(kind) for name, kind in self.types.items()}

    def run(self, x, form, lanes):
        return self.session(lanes).run(None, x)[0]


class OpenVino(Rival):
    """Lanes are OpenVINO's own streams, fed through its asynchronous queue."""

    shape_forms = ("dynamic", "static")
    stream_forms = ("dynamic",)

    def __init__(self, *arguments):
        super().__init__(*arguments)
        import openvino

        self.openvino = openvino
        self.core = openvino.Core()
        self.requests, self.queue = {}, None
        self.path = f"{self.work}/openvino-{'int8' if self.precision == 'int8' else 'fp32'}.xml"
        self.hint = "bf16" if self.precision == "bf16" else "f32"

    def compile(self, lanes, shape=None):
        model = self.core.read_model(self.path)
        if shape:
            model.reshape({name: list(shape) for name in ("input_ids", "attention_mask")})
        options = {"INFERENCE_PRECISION_HINT": self.hint, "INFERENCE_NUM_THREADS": self.n_threads}
        if lanes == 1:
            options["PERFORMANCE_HINT"] = "LATENCY"
        else:
            options.update(PERFORMANCE_HINT="THROUGHPUT", NUM_STREAMS=lanes)
        return self.core.compile_model(model, "CPU", options)

    def request(self, shape=None):
        if shape not in self.requests:
            self.requests[shape] = self.compile(1, shape).create_infer_request()
        return self.requests[shape]

    def describe(self):
        precision = self.request().get_compiled_model().get_property("INFERENCE_PRECISION_HINT").to_string()
        effective = f"int8 static, rest {precision}" if self.precision == "int8" else precision
        if self.precision == "bf16" and precision != "bf16":
            effective += " (no bf16 instructions: OpenVINO falls back)"
        return {"version": self.openvino.__version__, "effective": effective}

    def prepare(self, sequences):
        ids, mask = pad(sequences)
        return {"input_ids": ids, "attention_mask": mask}

    def run(self, x, form, lanes):
        request = self.request(x["input_ids"].shape if form == "static" else None)
        return request.infer(x)[0]

    def run_all(self, batches, form, lanes, deadline):
        if lanes == 1:
            return super().run_all(batches, form, lanes, deadline)
        if self.queue is None:
            self.queue = self.openvino.AsyncInferQueue(self.compile(lanes), lanes)
        for x in batches:
            self.queue.start_async(x)
            if time.perf_counter() > deadline:
                break
        self.queue.wait_all()
        return time.perf_counter() < deadline


class CTranslate2(Rival):
    """The encoder alone: the two small products of the head are not in its times."""

    KINDS = {"fp32": "float32", "int8": "int8"}

    def __init__(self, *arguments):
        super().__init__(*arguments)
        import ctranslate2
        from safetensors.numpy import load_file

        self.ctranslate2 = ctranslate2
        self.encoders = {}
        tensors = load_file(f"{self.work}/checkpoint/model.safetensors")
        self.head = [tensors[f"{n}.{p}"] for n in ("pre_classifier", "classifier") for p in ("weight", "bias")]

    def encoder(self, lanes):
        if lanes not in self.encoders:
            kind = self.KINDS[self.precision]
            self.encoders[lanes] = self.ctranslate2.Encoder(
                f"{self.work}/ctranslate2-{kind}", device="cpu", compute_type=kind,
                inter_threads=lanes, intra_threads=self.n_threads // lanes)
        return self.encoders[lanes]

    def describe(self):
        return {"version": self.ctranslate2.__version__, "effective": self.encoder(1).compute_type}

    def prepare(self, sequences):
        return sequences

    def run(self, x, form, lanes):
        return self.encoder(lanes).forward_batch(x)

    def logits(self, sequence):
        w, b, v, c = self.head
        state = numpy.array(self.run([sequence], "default", 1).last_hidden_state)[0, 0]
        return v @ numpy.maximum(w @ state + b, 0) + c


# name: (row, class, precision)
ENGINES = {
    "openvino-int8": ("int8", OpenVino, "int8"),
    "onnxruntime-int8-qint8": ("int8", OnnxRuntime, "int8-qint8"),
    "onnxruntime-int8-quint8": ("int8", OnnxRuntime, "int8-quint8"),
    "pytorch-int8": ("int8", PyTorch, "int8"),
    "ctranslate2-int8": ("int8", CTranslate2, "int8"),
    "openvino-bf16": ("bf16", OpenVino, "bf16"),
    "pytorch-bf16": ("bf16", PyTorch, "bf16"),
    "openvino-fp32": ("fp32", OpenVino, "fp32"),
    "onnxruntime-fp32": ("fp32", OnnxRuntime, "fp32"),
    "pytorch-fp32": ("fp32", PyTorch, "fp32"),
    "ctranslate2-fp32": ("fp32", CTranslate2, "fp32"),
}


class Session:
    """The protocol around one rival."""

    def __init__(self, rival, sequences):
        self.rival, self.sequences = rival, sequences
        self.shapes = {n: rival.prepare([workload.shape_sequence(n)]) for n in workload.SHAPES}
        self.batches = {}
        self.choice = {}

    def prepared(self, order, batch_size, step=1):
        key = (order, batch_size, step)
        if key not in self.batches:
            texts = self.sequences[::step]
            self.batches[key] = [self.rival.prepare(b) for b in cut(texts, order, batch_size)]
        return self.batches[key]

    def time_shape(self, name, form):
        start = time.perf_counter()
        self.rival.run(self.shapes[name], form, 1)
        return time.perf_counter() - start

    def time_stream(self, order, choice, step=1, limit=float("inf")):
        """Seconds of one pass, or infinity when it takes more than limit."""
        batches = self.prepared(order, choice["batch"], step)
        start = time.perf_counter()
        done = self.rival.run_all(batches, choice["form"], choice["lanes"], start + limit)
        return time.perf_counter() - start if done else float("inf")

    def tune_shape(self, name):
        best = {}
        for form in self.rival.shape_forms:
            for _ in range(4):
                self.time_shape(name, form)
            best[form] = min(self.time_shape(name, form) for _ in range(8))
        return {"form": min(best, key=best.get)}

    def tune_stream(self, order):
        """Every way on an eighth of the texts, the best four on all of them."""
        lanes = [1] + [self.rival.n_threads] * (self.rival.has_lanes and self.rival.n_threads > 1)
        ways = [
            {"form": form, "lanes": n, "batch": size}
            for form in self.rival.stream_forms for n in lanes for size in BATCH_SIZES]

        def race(ways, step, passes):
            times, best = [], float("inf")
            for way in ways:
                limit = 2 * best
                seconds = min(self.time_stream(order, way, step, limit) for _ in range(passes))
                times.append(seconds)
                best = min(best, seconds)
            return [w for _, w in sorted(zip(times, ways), key=lambda pair: pair[0])]

        return race(race(ways, 8, 2)[:4], 1, 2)[0]

    def tune(self, path):
        if path and os.path.exists(path):
            with open(path) as kept:
                self.choice = json.load(kept)
            return
        for name in workload.SHAPES:
            self.choice[name] = self.tune_shape(name)
        for order in ORDERS:
            self.choice[order] = self.tune_stream(order)
        if path:
            with open(path, "w") as out:
                json.dump(self.choice, out, indent=1)
                out.write("\n")

    def answer(self, words):
        if words[0] in workload.SHAPES:
            form = self.choice[words[0]]["form"]
            return {"ms": [1e3 * self.time_shape(words[0], form) for _ in range(int(words[1]))]}
        if words[0] == "stream":
            return {"ms": [1e3 * self.time_stream(words[1], self.choice[words[1]])]}
        if words[0] == "logits":
            texts = self.sequences[: int(words[1])]
            return {"logits": [[float(x) for x in self.rival.logits(s)] for s in texts]}
        raise ValueError(f"unknown request {words[0]!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=ENGINES)
    parser.add_argument("work")
    parser.add_argument("--ids", required=True, help="the stream: a line of token ids a text")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tuning", help="where the best ways are kept")
    options = parser.parse_args()

    # Libraries like to print; the protocol keeps the real stdout for itself.
    wire = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    row, kind, precision = ENGINES[options.name]
    rival = kind(options.work, precision, options.threads)
    session = Session(rival, workload.read_ids(options.ids))
    session.tune(options.tuning)
    about = {"engine": options.name, "row": row, **rival.describe(), "choice": session.choice}
    print(json.dumps(about), file=wire)
    for line in sys.stdin:
        words = line.split()
        if not words or words[0] == "quit":
            break
        print(json.dumps(session.answer(words)), file=wire)


if __name__ == "__main__":
    main()
