/* SPDX-License-Identifier: Apache-2.0
 *
 * stream.cc - streams and events.
 *
 * Work runs when it is given to its stream; in lazy mode when something waits for it: a
 * synchronisation or query of the stream, of an event recorded behind it, or another stream
 * that is told to wait for such an event and runs itself. So what nobody waits for has not
 * happened, and what happens late reads its buffers late. A first query of unfinished work
 * runs it and says that it is not ready.
 * The default stream never queues; it first runs what blocking streams hold.
 */
#include <chrono>
#include <map>
#include <set>

#include "tests/cuda/emulation/internal.h"

struct CUstream_st {
    std::shared_ptr<struct stream_state> state;
};

struct CUevent_st {
    int device;
    bool has_timing;
    bool is_recorded;
    std::shared_ptr<struct stream_state> stream; /* last recorded in */
    uint64_t n_before; /* the stream is past the event when it has done so much */
    std::shared_ptr<struct capture> capture; /* recorded into, or NULL */
    uint64_t n_captured;
    std::shared_ptr<std::chrono::steady_clock::time_point> time;
};

static std::set<cudaStream_t> streams;
static std::set<cudaEvent_t> events;
static std::shared_ptr<struct stream_state> default_streams[EMULATION_MAX_DEVICES];

size_t stream_n_handles() {
    return streams.size() + events.size();
}

/* ---- queues ------------------------------------------------------------------------- */

std::shared_ptr<struct stream_state> stream_find(cudaStream_t stream, int device) {
    if (stream) {
        if (!streams.count(stream) || stream->state->device != device)
            return nullptr;
        return stream->state;
    }
    std::shared_ptr<struct stream_state> &s = default_streams[device];
    if (!s) {
        s = std::make_shared<struct stream_state>();
        s->device = device;
        s->is_default = s->is_blocking = true;
    }
    return s;
}

void stream_drain(struct stream_state *stream, uint64_t until) {
    if (stream->n_done >= until)
        return;
    struct memory_access access;
    while (stream->n_done < until) {
        std::shared_ptr<const struct work> work = stream->queue.front();
        stream->queue.pop_front();
        work_run(work.get(), stream->device);
        stream->n_done++;
    }
}

void device_drain(int device, bool blocking_only) {
    for (cudaStream_t stream : streams) {
        struct stream_state *s = stream->state.get();
        if (s->device == device && (s->is_blocking || !blocking_only))
            stream_drain(s, s->n_queued);
    }
}

/* The default stream would have to wait for a stream that is captured. */
static cudaError_t check_implicit(int device) {
    for (cudaStream_t stream : streams) {
        struct stream_state *s = stream->state.get();
        if (s->device != device || !s->is_blocking || !s->capture)
            continue;
        capture_invalidate(s->capture.get());
        return cudaErrorStreamCaptureImplicit;
    }
    return cudaSuccess;
}

static cudaError_t add(struct stream_state *s, enum work_kind kind,
                       std::function<void(int)> run) {
    auto work =
        std::make_shared<const struct work>((struct work){kind, std::move(run)});
    if (s->capture) {
        if (!s->capture->is_valid)
            return cudaErrorStreamCaptureInvalidated;
        capture_add(s, work);
        return cudaSuccess;
    }
    if (s->is_default) {
        cudaError_t error = check_implicit(s->device);
        if (error)
            return error;
        device_drain(s->device, true);
    }
    s->queue.push_back(work);
    s->n_queued++;
    if (s->is_default || !emulation_settings()->is_lazy)
        stream_drain(s, s->n_queued);
    return cudaSuccess;
}

cudaError_t stream_add(cudaStream_t stream, int device, enum work_kind kind,
                       std::function<void(int)> run) {
    std::shared_ptr<struct stream_state> s = stream_find(stream, device);
    if (!s)
        return cudaErrorInvalidResourceHandle;
    return add(s.get(), kind, std::move(run));
}

/* Runs a stream up to a point. cudaErrorNotReady: it was not there yet. */
static cudaError_t query(struct stream_state *s, uint64_t until) {
    if (fault_count(FAULT_HANG, s->device, nullptr))
        return cudaErrorNotReady;
    if (s->n_done >= until)
        return device_take_error(s->device);
    stream_drain(s, until);
    return cudaErrorNotReady;
}

/* ---- streams ------------------------------------------------------------------------ */

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned int flags,
                                         int priority) {
    struct api_call call(API_PLAIN);
    (void)priority;
    if (call.error)
        return call.error;
    if (!stream || flags > cudaStreamNonBlocking)
        return call.result(cudaErrorInvalidValue);
    auto state = std::make_shared<struct stream_state>();
    state->device = call.device;
    state->is_blocking = flags != cudaStreamNonBlocking;
    *stream = new CUstream_st{state};
    streams.insert(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned int flags) {
    return cudaStreamCreateWithPriority(stream, flags, 0);
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) {
    return cudaStreamCreateWithPriority(stream, cudaStreamDefault, 0);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    struct api_call call(API_ALWAYS);
    if (!streams.count(stream))
        return call.result(cudaErrorInvalidResourceHandle);
    std::shared_ptr<struct capture> capture = stream->state->capture;
    if (capture && capture->origin == stream->state.get())
        capture_end(capture.get());
    else if (capture)
        capture_invalidate(capture.get());
    stream_drain(stream->state.get(), stream->state->n_queued);
    streams.erase(stream);
    delete stream;
    return call.error;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    struct api_call call(API_PLAIN, FAULT_SYNC);
    if (call.error)
        return call.error;
    std::shared_ptr<struct stream_state> s = stream_find(stream, call.device);
    if (!s)
        return call.result(cudaErrorInvalidResourceHandle);
    if (s->capture) {
        capture_invalidate(s->capture.get());
        return call.result(cudaErrorStreamCaptureUnsupported);
    }
    if (s->is_default)
        device_drain(call.device, true);
    stream_drain(s.get(), s->n_queued);
    return call.result(device_take_error(call.device));
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
    struct api_call call(API_PLAIN, FAULT_SYNC);
    if (call.error)
        return call.error;
    std::shared_ptr<struct stream_state> s = stream_find(stream, call.device);
    if (!s)
        return call.result(cudaErrorInvalidResourceHandle);
    if (s->capture) {
        capture_invalidate(s->capture.get());
        return call.result(cudaErrorStreamCaptureUnsupported);
    }
    return call.result(query(s.get(), s->n_queued));
}

/* ---- events ------------------------------------------------------------------------- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned int flags) {
    struct api_call call(API_PLAIN);
    if (call.error)
        return call.error;
    if (!event || flags > (cudaEventBlockingSync | cudaEventDisableTiming))
        return call.result(cudaErrorInvalidValue);
    *event = new CUevent_st();
    (*event)->device = call.device;
    (*event)->has_timing = !(flags & cudaEventDisableTiming);
    events.insert(*event);
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event) {
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    struct api_call call(API_ALWAYS);
    if (!events.erase(event))
        return call.result(cudaErrorInvalidResourceHandle);
    delete event;
    return call.error;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    struct api_call call(API_PLAIN, FAULT_EVENT);
    if (call.error)
        return call.error;
    std::shared_ptr<struct stream_state> s = stream_find(stream, call.device);
    if (!s || !events.count(event) || event->device != call.device)
        return call.result(cudaErrorInvalidResourceHandle);
    event->stream = s;
    event->capture = s->capture;
    if (s->capture) {
        event->n_captured = s->n_captured;
        return call.result(s->capture->is_valid ? cudaSuccess
                                                : cudaErrorStreamCaptureInvalidated);
    }
    auto time = std::make_shared<std::chrono::steady_clock::time_point>();
    event->time = time;
    event->is_recorded = true;
    event->n_before = s->n_queued + 1;
    return call.result(add(s.get(), WORK_RECORD,
                           [time](int) { *time = std::chrono::steady_clock::now(); }));
}

/* The stream waits for an event that was recorded in a capture: it joins the capture, or
 * has the event's stream joined. */
static cudaError_t wait_captured(const std::shared_ptr<struct stream_state> &s,
                                 const struct CUevent_st *event) {
    if (!event->capture)
        return cudaErrorStreamCaptureIsolation;
    if (!event->capture->is_valid)
        return cudaErrorStreamCaptureInvalidated;
    if (!event->stream->capture) /* the capture has ended */
        return cudaErrorCapturedEvent;
    if (s->capture && s->capture != event->capture)
        return cudaErrorStreamCaptureMerge;
    if (!s->capture) {
        s->capture = event->capture;
        s->capture->streams.push_back(s);
        s->n_captured = 0;
        s->is_unjoined = true;
    } else if (event->n_captured == event->stream->n_captured)
        event->stream->is_unjoined = false;
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event,
                                unsigned int flags) {
    struct api_call call(API_PLAIN, FAULT_EVENT);
    (void)flags;
    if (call.error)
        return call.error;
    std::shared_ptr<struct stream_state> s = stream_find(stream, call.device);
    if (!s || !events.count(event))
        return call.result(cudaErrorInvalidResourceHandle);
    if (s->capture || event->capture) {
        cudaError_t error = wait_captured(s, event);
        if (error && s->capture)
            capture_invalidate(s->capture.get());
        return call.result(error);
    }
    if (!event->is_recorded)
        return cudaSuccess;
    std::shared_ptr<struct stream_state> other = event->stream;
    uint64_t until = event->n_before;
    return call.result(add(s.get(), WORK_WAIT,
                           [other, until](int) { stream_drain(other.get(), until); }));
}

/* Whether an event can be asked after. */
static cudaError_t check_event(cudaEvent_t event) {
    if (!events.count(event))
        return cudaErrorInvalidResourceHandle;
    return event->capture ? cudaErrorCapturedEvent : cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    struct api_call call(API_UNSAFE, FAULT_EVENT);
    if (call.error || call.result(check_event(event)))
        return call.error;
    if (!event->is_recorded)
        return cudaSuccess;
    return call.result(query(event->stream.get(), event->n_before));
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    struct api_call call(API_UNSAFE, FAULT_SYNC);
    if (call.error || call.result(check_event(event)))
        return call.error;
    if (!event->is_recorded)
        return cudaSuccess;
    stream_drain(event->stream.get(), event->n_before);
    return call.result(device_take_error(event->device));
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end) {
    struct api_call call(API_PLAIN, FAULT_EVENT);
    if (call.error || call.result(check_event(start)) || call.result(check_event(end)))
        return call.error;
    if (!start->is_recorded || !end->is_recorded || !start->has_timing ||
        !end->has_timing)
        return call.result(cudaErrorInvalidResourceHandle);
    if (start->stream->n_done < start->n_before || end->stream->n_done < end->n_before)
        return call.result(cudaErrorNotReady);
    *ms = std::chrono::duration<float, std::milli>(*end->time - *start->time).count();
    return call.result(device_take_error(call.device));
}
