/* SPDX-License-Identifier: Apache-2.0
 *
 * graph.cc - captures and their graphs.
 *
 * A graph is the list of what was given to the captured streams, in the order of the calls:
 * an order that keeps to every dependency. Arguments are those of the capture; what they
 * point to is read at each replay. Calls that are not safe during a capture invalidate it,
 * after its mode, as cudaStreamBeginCapture documents.
 */
#include <set>

#include "tests/cuda/emulation/internal.h"

struct CUgraph_st {
    work_list nodes;
};

struct CUgraphExec_st {
    std::shared_ptr<const work_list> nodes; /* launches under way hold them too */
};

static std::set<cudaGraph_t> graphs;
static std::set<cudaGraphExec_t> execs;
static std::set<std::shared_ptr<struct capture>> captures; /* under way */

size_t graph_n_handles() {
    return graphs.size() + execs.size();
}

/* ---- running ------------------------------------------------------------------------ */

void work_run(const struct work *work, int device) {
    struct device *d = emulation_device(device);
    if (work->kind == WORK_KERNEL || work->kind == WORK_MATMUL) {
        bool is_sticky = false;
        int code = fault_count(FAULT_LAUNCH, device, &is_sticky);
        if (code && !d->error) {
            d->error = (cudaError_t)code;
            d->is_sticky = is_sticky;
        }
    }
    bool is_of_host = work->kind == WORK_RECORD || work->kind == WORK_WAIT;
    if (d->error && !is_of_host)
        return;
    work->run(device);
}

/* ---- captures ----------------------------------------------------------------------- */

void capture_invalidate(struct capture *capture) {
    capture->is_valid = false;
}

cudaError_t capture_forbids() {
    cudaError_t error = cudaSuccess;
    for (const auto &c : captures) {
        bool is_mine = c->thread == std::this_thread::get_id();
        if (c->mode == cudaStreamCaptureModeRelaxed ||
            (c->mode == cudaStreamCaptureModeThreadLocal && !is_mine))
            continue;
        capture_invalidate(c.get());
        error = cudaErrorStreamCaptureUnsupported;
    }
    return error;
}

void capture_add(struct stream_state *stream, std::shared_ptr<const struct work> work) {
    stream->capture->nodes.push_back(std::move(work));
    stream->n_captured++;
    stream->is_unjoined = stream != stream->capture->origin;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream,
                                   enum cudaStreamCaptureMode mode) {
    struct api_call call(API_PLAIN);
    if (call.error)
        return call.error;
    std::shared_ptr<struct stream_state> s = stream_find(stream, call.device);
    if (!s)
        return call.result(cudaErrorInvalidResourceHandle);
    if (s->is_default)
        return call.result(cudaErrorStreamCaptureUnsupported);
    if (s->capture)
        return call.result(cudaErrorIllegalState);
    auto capture = std::make_shared<struct capture>();
    capture->mode = mode;
    capture->thread = std::this_thread::get_id();
    capture->origin = s.get();
    capture->streams.push_back(s);
    capture->is_valid = true;
    s->capture = capture;
    s->n_captured = 0;
    s->is_unjoined = false;
    captures.insert(capture);
    return cudaSuccess;
}

/* What is wrong at the end of a capture. */
static cudaError_t check_end(const struct capture *capture) {
    if (!capture->is_valid)
        return cudaErrorStreamCaptureInvalidated;
    for (const auto &s : capture->streams)
        if (s->is_unjoined)
            return cudaErrorStreamCaptureUnjoined;
    return cudaSuccess;
}

void capture_end(struct capture *capture) {
    for (const auto &member : capture->streams)
        member->capture = nullptr;
    capture->streams.clear();
    for (const auto &c : captures)
        if (c.get() == capture) {
            captures.erase(c);
            break;
        }
}

/* A call that is made to fail ends the capture too, as one that fails by itself does. */
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    struct api_call call(API_PLAIN);
    if (call.error == cudaErrorNoDevice)
        return call.error;
    std::shared_ptr<struct stream_state> s = stream_find(stream, call.device);
    if (!s)
        return call.result(cudaErrorInvalidResourceHandle);
    *graph = nullptr;
    std::shared_ptr<struct capture> capture = s->capture;
    if (!capture)
        return call.result(cudaErrorIllegalState);
    if (capture->origin != s.get())
        return call.result(cudaErrorStreamCaptureUnmatched);
    if (capture->mode != cudaStreamCaptureModeRelaxed &&
        capture->thread != std::this_thread::get_id())
        return call.result(cudaErrorStreamCaptureWrongThread);
    cudaError_t error = call.error ? call.error : check_end(capture.get());
    capture_end(capture.get());
    if (error)
        return call.result(error);
    *graph = new CUgraph_st{capture->nodes};
    graphs.insert(*graph);
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream,
                                  enum cudaStreamCaptureStatus *status) {
    struct api_call call(API_PLAIN);
    if (call.error)
        return call.error;
    std::shared_ptr<struct stream_state> s = stream_find(stream, call.device);
    if (!s)
        return call.result(cudaErrorInvalidResourceHandle);
    *status = !s->capture            ? cudaStreamCaptureStatusNone
              : s->capture->is_valid ? cudaStreamCaptureStatusActive
                                     : cudaStreamCaptureStatusInvalidated;
    return cudaSuccess;
}

/* ---- graphs ------------------------------------------------------------------------- */

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph,
                                 unsigned long long flags) {
    struct api_call call(API_PLAIN);
    (void)flags;
    if (call.error)
        return call.error;
    if (!exec || !graphs.count(graph))
        return call.result(cudaErrorInvalidValue);
    *exec = new CUgraphExec_st{std::make_shared<const work_list>(graph->nodes)};
    execs.insert(*exec);
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph,
                                          unsigned long long flags) {
    return cudaGraphInstantiate(exec, graph, flags);
}

/* How many; the nodes themselves have no handles here. */
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes,
                              size_t *n_nodes) {
    struct api_call call(API_PLAIN);
    if (call.error)
        return call.error;
    if (!graphs.count(graph) || nodes || !n_nodes)
        return call.result(cudaErrorInvalidValue);
    *n_nodes = graph->nodes.size();
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream) {
    struct api_call call(API_PLAIN);
    if (call.error)
        return call.error;
    if (!execs.count(exec))
        return call.result(cudaErrorInvalidValue);
    return call.result(stream_find(stream, call.device)
                           ? cudaSuccess
                           : cudaErrorInvalidResourceHandle);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    struct api_call call(API_PLAIN);
    if (call.error)
        return call.error;
    if (!execs.count(exec))
        return call.result(cudaErrorInvalidValue);
    std::shared_ptr<const work_list> nodes = exec->nodes;
    return call.result(stream_add(stream, call.device, WORK_GRAPH, [nodes](int device) {
        for (const auto &node : *nodes)
            work_run(node.get(), device);
    }));
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    struct api_call call(API_ALWAYS);
    if (!execs.erase(exec))
        return call.result(cudaErrorInvalidValue);
    delete exec;
    return call.error;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    struct api_call call(API_ALWAYS);
    if (!graphs.erase(graph))
        return call.result(cudaErrorInvalidValue);
    delete graph;
    return call.error;
}
