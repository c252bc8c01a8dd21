// Lets other Python threads run, as nanobind's `gil_scoped_release` does, and survives the interpreter's end.
//
// When the interpreter ends while a daemon thread is in here, Python before 3.14 answers that thread's wish to come back
// with pthread_exit, which unwinds the stack; nanobind's frames must not be unwound, so the whole process would abort.
// Instead the thread waits here for the process to end, as Python 3.14 has it wait.

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
