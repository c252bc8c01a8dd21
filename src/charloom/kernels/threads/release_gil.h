// Releases the GIL, as nanobind's `gil_scoped_release` does, and survives the interpreter's exit.
//
// When the interpreter exits while a daemon thread is in a kernel, Python before 3.14 ends that thread with
// pthread_exit as soon as it acquires the GIL again. That unwinds the stack; nanobind's frames must not be unwound, so
// the process would abort. Instead the thread waits here for the process to end, as in Python 3.14.

#pragma once

#include <Python.h>
#include <unistd.h>

namespace charloom {

class ReleaseGil {
public:
    ReleaseGil() : state_(PyEval_SaveThread()) {}
    ReleaseGil(const ReleaseGil&) = delete;
    ~ReleaseGil() {
        try {
            PyEval_RestoreThread(state_);
        } catch (...) {
            for (;;) pause();
        }
    }

private:
    PyThreadState* state_;
};

}  // namespace charloom
