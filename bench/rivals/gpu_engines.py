#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One GPU rival in one process: it loads the checkpoint, then answers lines with lines of JSON.

usage: bench/rivals/gpu_engines.py ENGINE --model DIR --work FILE [--dry]

  (start)      {"engine":…,"versions":…}, or {"error":why}: this rival is not to be had here
  prepare S T  compiles, captures, warms up every way that it has for the shape S of FILE, in
               T seconds: {"ways":{name: seconds it took, or why it failed}}
  choose S     times those and keeps the fastest: {"way":…,"ms":{way: …}}
  shape S N    N runs, one at a time: {"ms":[…],"device_ms":[…]}, as vigil bench --interactive
  flight S N   N runs, queued without a break: {"ms":all of it,"device_ms":[…]}
  answers S    {"logits":[[…],…]} in FILE's order
  peaks        what the chip reaches through PyTorch: {"tflops_fp16":…,"copy_gb_s":…,…}

FILE is JSON: {"shape": [[id, …], …], …}. Inputs lie on the device before the clock starts and
logits stay there: copies are Vigil's burden alone. --dry computes on the CPU in fp32, to try
the script where there is no GPU.
"""
import argparse
import contextlib
import json
import os
import signal
import statistics
import sys
import time

WARM_RUNS = 3
CHOOSE_RUNS = 7
PADDED_BATCHES = (256, 128, 64, 32)
MAX_POSITIONS = 512


def say(answer):
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


class Absent(Exception):
    """This rival is not to be had on this machine, and why."""


class Late(BaseException):
    """The time for getting ready is over; no `except Exception` of a library takes it."""


def on_alarm(*_):
    raise Late


# --- The device ---------------------------------------------------------------------------------


class Cuda:
    is_dry = False

    def __init__(self, torch):
        self.torch = torch
        if not torch.cuda.is_available():
            raise Absent("PyTorch sees no GPU")
        self.name, self.dtype = "cuda", torch.float16
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = True  # its best

    def sync(self):
        self.torch.cuda.synchronize()

    def event(self):
        event = self.torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def elapsed(self, start, end):
        return start.elapsed_time(end)

    def capture(self, run):
        """(replay, outputs) of one CUDA graph with all that run() launches"""
        torch = self.torch
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_RUNS):
                run()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = run()
        return graph.replay, outputs


class Dry:
    """The CPU in the place of the device, to try the script."""
    is_dry = True

    def __init__(self, torch):
        self.torch, self.name, self.dtype = torch, "cpu", torch.float32
        torch.set_num_threads(1)

    def sync(self):
        pass

    def event(self):
        return time.perf_counter()

    def elapsed(self, start, end):
        return 1e3 * (end - start)

    def capture(self, run):
        outputs = run()

        def replay():
            for kept, new in zip(outputs, run()):
                kept.copy_(new)

        return replay, outputs


# --- The model in plain PyTorch ---------------------------------------------------------------------


def read_safetensors(torch, path):
    kinds = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = bytearray(file.read())
    return {name: torch.frombuffer(data, dtype=kinds[t["dtype"]], offset=t["data_offsets"][0],
                                   count=(t["data_offsets"][1] - t["data_offsets"][0])
                                   // kinds[t["dtype"]].itemsize).reshape(t["shape"])
            for name, t in header.items() if name != "__metadata__"}


def varlen_attention(torch, device):
    """(name, attention over packed sequences): the first that works here."""
    functional = torch.nn.functional

    def by_module():
        from torch.nn.attention.varlen import varlen_attn

        return lambda q, k, v, cu, longest, lengths: varlen_attn(q, k, v, cu, cu, longest, longest)

    def by_aten():
        return lambda q, k, v, cu, longest, lengths: torch.ops.aten._flash_attention_forward(
            q, k, v, cu, cu, longest, longest, 0.0, False, False)[0]

    def by_nested():
        def attend(q, k, v, cu, longest, lengths):
            q, k, v = (torch.nested.nested_tensor_from_jagged(x, cu, max_seqlen=longest, min_seqlen=1)
                       .transpose(1, 2) for x in (q, k, v))
            return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).values()
        return attend

    def by_loop():  # a GPU rival never gets here
        def attend(q, k, v, cu, longest, lengths):
            parts = (functional.scaled_dot_product_attention(
                *(x.transpose(0, 1)[None] for x in each))[0].transpose(0, 1)
                for each in zip(q.split(lengths), k.split(lengths), v.split(lengths)))
            return torch.cat(list(parts))
        return attend

    lengths = [3, 5]
    cu = torch.tensor([0, 3, 8], dtype=torch.int32, device=device.name)
    q, k, v = (torch.randn(8, 2, 64, dtype=device.dtype, device=device.name) for _ in range(3))
    right = by_loop()(q, k, v, cu, 5, lengths)
    why = []
    tried = [("varlen_attn", by_module), ("aten._flash_attention_forward", by_aten), ("nested jagged SDPA", by_nested)]
    for name, make in [("a loop", by_loop)] if device.is_dry else tried:
        try:
            attend = make()
            with torch.inference_mode():
                found = attend(q, k, v, cu, 5, lengths)
            device.sync()
            if not torch.allclose(found.reshape(right.shape), right, atol=2e-2):
                raise RuntimeError("gives other values")
            return name, attend
        except Exception as problem:  # whatever a build of PyTorch may lack
            why.append(f"{name}: {str(problem).splitlines()[0][:120] if str(problem) else type(problem).__name__}")
    raise Absent("no attention over packed sequences: " + "; ".join(why))


def make_module(torch, directory, device, dtype, attend=None):
    """DistilBertForSequenceClassification: one product for queries, keys and values, erf-GELU,
    all rows of all layers. attend: sequences are packed; else they are padded."""
    nn, functional = torch.nn, torch.nn.functional
    with open(f"{directory}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    t = {name: tensor.to(device.name, dtype)
         for name, tensor in read_safetensors(torch, f"{directory}/model.safetensors").items()}
    heads, eps = config["n_heads"], 1e-12

    class Layer(nn.Module):
        def __init__(self, at):
            super().__init__()

            def both(*names):
                return [nn.Parameter(torch.cat([t[f"{at}.{name}.{kind}"] for name in names]), False)
                        for kind in ("weight", "bias")]

            self.wqkv, self.bqkv = both("attention.q_lin", "attention.k_lin", "attention.v_lin")
            self.wout, self.bout = both("attention.out_lin")
            self.wnorm, self.bnorm = both("sa_layer_norm")
            self.wup, self.bup = both("ffn.lin1")
            self.wdown, self.bdown = both("ffn.lin2")
            self.wlast, self.blast = both("output_layer_norm")

        def forward(self, x, how):
            width = x.shape[-1]
            q, k, v = functional.linear(x, self.wqkv, self.bqkv).unflatten(-1, (3, heads, -1)).unbind(-3)
            if attend:
                context = attend(q, k, v, how["cu"], how["longest"], how["lengths"])
            else:
                context = functional.scaled_dot_product_attention(
                    q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=how["mask"]).transpose(1, 2)
            context = functional.linear(context.reshape(x.shape), self.wout, self.bout)
            x = functional.layer_norm(x + context, (width,), self.wnorm, self.bnorm, eps)
            up = functional.gelu(functional.linear(x, self.wup, self.bup))
            return functional.layer_norm(x + functional.linear(up, self.wdown, self.bdown), (width,),
                                         self.wlast, self.blast, eps)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.tensors = nn.ParameterDict({name.replace(".", "_"): nn.Parameter(t[name], False) for name in (
                "distilbert.embeddings.word_embeddings.weight",
                "distilbert.embeddings.position_embeddings.weight",
                "distilbert.embeddings.LayerNorm.weight", "distilbert.embeddings.LayerNorm.bias",
                "pre_classifier.weight", "pre_classifier.bias", "classifier.weight", "classifier.bias")})
            self.layers = nn.ModuleList(Layer(f"distilbert.transformer.layer.{i}") for i in range(config["n_layers"]))

        def forward(self, ids, positions, how):
            w = self.tensors
            x = (functional.embedding(ids, w["distilbert_embeddings_word_embeddings_weight"])
                 + functional.embedding(positions, w["distilbert_embeddings_position_embeddings_weight"]))
            x = functional.layer_norm(x, (x.shape[-1],), w["distilbert_embeddings_LayerNorm_weight"],
                                      w["distilbert_embeddings_LayerNorm_bias"], eps)
            for layer in self.layers:
                x = layer(x, how)
            x = x[how["first"]] if attend else x[:, 0]
            x = functional.relu(functional.linear(x, w["pre_classifier_weight"], w["pre_classifier_bias"]))
            return functional.linear(x, w["classifier_weight"], w["classifier_bias"])

    return Model().eval()


# --- Rivals ------------------------------------------------------------------------------------


class Way:
    """One way to compute a shape: run() launches all of it, outputs() are its logits."""

    def __init__(self, run, outputs, order):
        self.run, self.outputs, self.order = run, outputs, order

    def logits(self):
        rows = [row for output in self.outputs() for row in output.float().cpu().tolist()]
        placed = [None] * len(rows)
        for row, at in zip(rows, self.order):
            placed[at] = row
        return placed


class Rival:
    def __init__(self, torch, device, options):
        self.torch, self.device, self.options = torch, device, options
        self.about = {}

    def ways(self, sequences):
        """{name: maker of a Way}"""
        raise NotImplementedError

    def eager(self, run, order):
        kept = []

        def launch():
            kept[:] = run()

        return Way(launch, lambda: kept, order)

    def captured(self, run, order):
        replay, outputs = self.device.capture(run)
        return Way(replay, lambda: outputs, order)


class Padded(Rival):
    """Batches padded to their longest sequence, of several sizes, as they come and sorted."""
    is_captured = False

    def forward(self, ids, mask):
        raise NotImplementedError

    def tensors(self, rows):
        torch, name = self.torch, self.device.name
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=name)
        if all(len(row) == longest for row in rows):
            return ids, None
        lengths = torch.tensor([len(row) for row in rows], device=name)
        keep = torch.arange(longest, device=name)[None] < lengths[:, None]
        return ids, keep[:, None, None, :].expand(-1, 1, longest, longest)

    def way(self, sequences, order, size):
        batches = [self.tensors([sequences[i] for i in order[at:at + size]])
                   for at in range(0, len(order), size)]

        def run():
            return [self.forward(ids, mask) for ids, mask in batches]

        return self.captured(run, order) if self.is_captured else self.eager(run, order)

    def sizes(self, sequences):
        return [size for size in PADDED_BATCHES if size <= len(sequences)] or [len(sequences)]

    def ways(self, sequences):
        came = list(range(len(sequences)))
        if len({len(s) for s in sequences}) == 1:
            return {"one batch": lambda: self.way(sequences, came, len(came))}
        by_length = sorted(came, key=lambda i: len(sequences[i]))
        made = {f"sorted, batches of {n}": lambda n=n: self.way(sequences, by_length, n)
                for n in self.sizes(sequences)}
        made[f"as they come, {len(came)}"] = lambda: self.way(sequences, came, len(came))
        return made


class Transformers(Padded):
    attention, mode = "sdpa", None

    def __init__(self, torch, device, options):
        super().__init__(torch, device, options)
        try:
            import transformers
        except ImportError as problem:
            raise Absent(f"no transformers: {problem}") from problem
        transformers.logging.set_verbosity_error()
        self.about["transformers"] = transformers.__version__
        model = transformers.DistilBertForSequenceClassification.from_pretrained(
            options.model, attn_implementation=self.attention, dtype=device.dtype)
        self.model = model.to(device.name).eval()
        if self.mode:
            self.model.forward = torch.compile(self.model.forward, mode=self.mode, dynamic=False)

    def forward(self, ids, mask):
        if mask is not None and self.attention == "eager":
            mask = self.torch.zeros(mask.shape, dtype=self.device.dtype, device=mask.device).masked_fill(
                ~mask, self.torch.finfo(self.device.dtype).min)
        logits = self.model(input_ids=ids, attention_mask=mask).logits
        return logits.clone() if self.mode == "reduce-overhead" else logits


class TransformersEager(Transformers):
    attention = "eager"


class TransformersGraph(Transformers):
    is_captured = True


class TransformersCompiled(Transformers):
    """CUDA graphs by PyTorch's own trees."""
    mode = "reduce-overhead"

    def sizes(self, sequences):
        return super().sizes(sequences)[:1]  # each shape is compiled apart


class Module(Padded):
    """Plain torch.nn with one product for queries, keys and values."""
    is_captured, mode, precision = True, None, None

    def __init__(self, torch, device, options):
        super().__init__(torch, device, options)
        self.positions = torch.arange(MAX_POSITIONS, device=device.name)
        self.model = make_module(torch, options.model, device, self.precision or device.dtype)
        if self.mode:
            self.model = torch.compile(self.model, mode=self.mode, dynamic=False)

    def forward(self, ids, mask):
        return self.model(ids, self.positions[:ids.shape[1]], {"mask": mask})


class ModuleCompiled(Module):
    mode = "default"

    def sizes(self, sequences):
        return super().sizes(sequences)[:1]


class Packed(Rival):
    """The same, sequences end to end without padding."""
    mode, can_capture = None, True

    def __init__(self, torch, device, options):
        super().__init__(torch, device, options)
        name, attend = varlen_attention(torch, device)
        self.about["attention"] = name
        self.model = make_module(torch, options.model, device, device.dtype, attend)
        if self.mode:
            self.model = torch.compile(self.model, mode=self.mode, dynamic=False)

    def ways(self, sequences):
        torch, name = self.torch, self.device.name
        lengths = [len(s) for s in sequences]
        starts = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
        ids = torch.tensor([i for s in sequences for i in s], device=name)
        positions = torch.tensor([i for n in lengths for i in range(n)], device=name)
        cu = torch.tensor(starts, dtype=torch.int32, device=name)
        how = {"cu": cu, "first": cu[:-1].long(), "longest": max(lengths),
               "lengths": lengths if self.device.is_dry else None}

        def run():
            return [self.model(ids, positions, how)]

        order = list(range(len(sequences)))
        return {"captured": lambda: self.captured(run, order), "eager": lambda: self.eager(run, order)}


class PackedCompiled(Packed):
    mode = "default"


class PackedAutotuned(Packed):
    """Every product's kernel chosen by timing, Triton's among them."""
    mode = "max-autotune-no-cudagraphs"


class Reference(Module):
    """fp32 throughout: what answers are held against; never timed."""
    is_captured = False

    def __init__(self, torch, device, options):
        torch.backends.cuda.matmul.allow_tf32 = False
        self.precision = torch.float32
        super().__init__(torch, device, options)

    def ways(self, sequences):
        name, make = next(iter(super().ways(sequences).items()))
        return {name: make}


class OnnxRuntime(Padded):
    def __init__(self, torch, device, options):
        super().__init__(torch, device, options)
        try:
            import onnxruntime
        except ImportError as problem:
            raise Absent(f"no onnxruntime: {problem}") from problem
        provider = "CPUExecutionProvider" if device.is_dry else "CUDAExecutionProvider"
        if provider not in onnxruntime.get_available_providers():
            raise Absent(f"onnxruntime {onnxruntime.__version__} has no {provider}, only "
                         + ", ".join(onnxruntime.get_available_providers()))
        self.about["onnxruntime"] = onnxruntime.__version__
        from onnxruntime.transformers import optimizer

        import models
        with open(f"{options.model}/config.json", encoding="utf-8") as file:
            config = json.load(file)
        path = f"{options.work}.{os.getpid()}.onnx"
        models.make_onnx(options.model, path)
        fused = optimizer.optimize_model(path, "bert", num_heads=config["n_heads"], hidden_size=config["dim"],
                                         opt_level=1, use_gpu=not device.is_dry)
        if not device.is_dry:
            fused.convert_float_to_float16(keep_io_types=False)
        fused.save_model_to_file(path)
        self.session = onnxruntime.InferenceSession(path, providers=[provider])
        os.remove(path)

    def tensors(self, rows):
        ids, keep = super().tensors(rows)
        return ids, (ids * 0 + 1 if keep is None else keep[:, 0, 0, :].long()).contiguous()

    def forward(self, ids, mask):
        torch, binding = self.torch, self.session.io_binding()
        import numpy

        with open(f"{self.options.model}/config.json", encoding="utf-8") as file:
            labels = len(json.load(file).get("id2label", [0, 1]))
        logits = torch.empty((ids.shape[0], labels), dtype=self.device.dtype, device=ids.device)
        for name, tensor in (("input_ids", ids), ("attention_mask", mask)):
            binding.bind_input(name, self.device.name, 0, numpy.int64, tuple(tensor.shape), tensor.data_ptr())
        kind = numpy.float16 if self.device.dtype == torch.float16 else numpy.float32
        binding.bind_output("logits", self.device.name, 0, kind, tuple(logits.shape), logits.data_ptr())
        self.session.run_with_iobinding(binding)
        return logits


class TensorRt(Rival):
    def __init__(self, torch, device, options):
        super().__init__(torch, device, options)
        try:
            import tensorrt
        except ImportError as problem:
            raise Absent(f"no tensorrt: {problem}") from problem
        raise Absent(f"tensorrt {tensorrt.__version__} is here, but this program does not drive it")


# In the order in which they are made ready; the last ones take longest.
ENGINES = {
    "reference": Reference,
    "transformers-eager": TransformersEager,
    "transformers-sdpa": Transformers,
    "transformers-graph": TransformersGraph,
    "module-graph": Module,
    "packed-graph": Packed,
    "module-compile": ModuleCompiled,
    "packed-compile": PackedCompiled,
    "transformers-compile": TransformersCompiled,
    "packed-autotune": PackedAutotuned,
    "onnxruntime": OnnxRuntime,
    "tensorrt": TensorRt,
}
# Times kernels while it compiles: nothing else may run then.
ALONE = {"packed-autotune"}


# --- Answers -----------------------------------------------------------------------------------


def measure_peaks(torch, device):
    """A copy counts what it reads and what it writes."""
    n_bytes, side, runs = (1 << 24, 256, 3) if device.is_dry else (2 << 30, 8192, 20)
    source = torch.randint(0, 255, (n_bytes,), dtype=torch.uint8, device=device.name)
    target = torch.empty_like(source)
    a, b = (torch.randn(side, side, device=device.name).to(device.dtype) for _ in range(2))
    out = torch.empty_like(a)

    def best(run):
        times = []
        for i in range(runs + WARM_RUNS):
            start = device.event()
            run()
            end = device.event()
            device.sync()
            if i >= WARM_RUNS:
                times.append(device.elapsed(start, end))
        return statistics.median(times)

    found = {"copy_gb_s": 2 * n_bytes / best(lambda: target.copy_(source)) / 1e6,
             "tflops_fp16": 2 * side ** 3 / best(lambda: torch.mm(a, b, out=out)) / 1e9,
             "torch": torch.__version__, "cuda": torch.version.cuda}
    if not device.is_dry:
        about = torch.cuda.get_device_properties(0)
        found.update(device=about.name, multiprocessors=about.multi_processor_count,
                     memory_gib=round(about.total_memory / 2 ** 30, 1), sm=f"{about.major}{about.minor}")
    return found


class Answers:
    def __init__(self, rival, shapes):
        self.rival, self.shapes, self.device = rival, shapes, rival.device
        self.made, self.chosen = {}, {}

    def prepare_way(self, shape, name, make):
        start = time.perf_counter()
        try:
            way = make()
            for _ in range(WARM_RUNS):
                way.run()
            self.device.sync()
            self.made[shape][name] = way
            return round(time.perf_counter() - start, 2)
        except Late:
            return f"not ready after {time.perf_counter() - start:.0f} s"
        except Exception as problem:  # a way that fails leaves the others
            return f"{type(problem).__name__}: {(str(problem).splitlines() or [''])[0][:200]}"

    def prepare(self, shape, seconds):
        told, self.made[shape] = {}, {}
        end = time.monotonic() + seconds
        try:
            for name, make in self.rival.ways(self.shapes[shape]).items():
                signal.setitimer(signal.ITIMER_REAL, max(0.01, end - time.monotonic()))
                told[name] = self.prepare_way(shape, name, make)
        except Late:
            pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return {"ways": told}

    def choose(self, shape):
        times = {name: statistics.median(self.runs(way, CHOOSE_RUNS)["device_ms"])
                 for name, way in self.made[shape].items()}
        best = min(times, key=times.get)
        self.chosen[shape] = self.made[shape][best]
        return {"way": best, "ms": times}

    def runs(self, way, n):
        ms, device_ms = [], []
        for _ in range(n):
            begin = time.perf_counter()
            start = self.device.event()
            way.run()
            end = self.device.event()
            self.device.sync()
            ms.append(1e3 * (time.perf_counter() - begin))
            device_ms.append(self.device.elapsed(start, end))
        return {"ms": ms, "device_ms": device_ms}

    def flight(self, way, n):
        begin = time.perf_counter()
        events = [self.device.event()]
        for _ in range(n):
            way.run()
            events.append(self.device.event())
        self.device.sync()
        ms = 1e3 * (time.perf_counter() - begin)
        return {"ms": ms, "device_ms": [self.device.elapsed(a, b) for a, b in zip(events, events[1:])]}

    def answer(self, words):
        verb, shape = words[0], words[1] if len(words) > 1 else None
        if verb == "peaks":
            return measure_peaks(self.rival.torch, self.device)
        if shape not in self.shapes:
            raise ValueError(f"no shape {shape}")
        if verb == "prepare":
            return self.prepare(shape, float(words[2]))
        if verb == "choose":
            return self.choose(shape)
        way = self.chosen[shape]
        if verb == "shape":
            return self.runs(way, int(words[2]))
        if verb == "flight":
            return self.flight(way, int(words[2]))
        if verb == "answers":
            way.run()
            self.device.sync()
            return {"logits": way.logits()}
        raise ValueError(f"no request {verb}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--model", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    with contextlib.redirect_stdout(sys.stderr):  # what libraries print is no answer
        try:
            import torch
            import torch._dynamo

            torch._dynamo.config.recompile_limit = 64  # a shape, a kernel: none is given up
            with open(options.work, encoding="utf-8") as file:
                shapes = json.load(file)
            device = (Dry if options.dry else Cuda)(torch)
            rival = ENGINES[options.engine](torch, device, options)
            first = {"engine": options.engine, "versions": {"torch": torch.__version__, **rival.about}}
        except Exception as problem:
            word = "" if isinstance(problem, Absent) else f"{type(problem).__name__}: "
            first = {"error": word + (str(problem).splitlines() or [""])[0][:300]}
    say(first)
    if "error" in first:
        return 0
    answers = Answers(rival, shapes)
    signal.signal(signal.SIGALRM, on_alarm)
    with torch.inference_mode():
        for line in sys.stdin:
            if line.split()[:1] == ["quit"]:
                break
            try:
                with contextlib.redirect_stdout(sys.stderr):
                    answer = answers.answer(line.split())
            except Exception as problem:  # told, and the next request is served
                answer = {"error": f"{type(problem).__name__}: {(str(problem).splitlines() or [''])[0][:300]}"}
            say(answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
