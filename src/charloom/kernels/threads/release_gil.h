// Releases the GIL, as nanobind's `gil_scoped_release` does, and survives the interpreter's exit.
//
// Before Python 3.14, a daemon thread that acquires the GIL while the interpreter exits is ended with pthread_exit. That
// unwinds the stack. nanobind's frames must not be unwound, so a thread in a kernel would abort the process. With this
// class, the thread waits for the process to end, as in Python 3.14.

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
