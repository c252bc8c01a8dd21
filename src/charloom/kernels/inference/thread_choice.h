// Measures whether a team of threads is faster than one thread at the moment.
//
// On an idle machine two threads generate up to six times as fast as one, because each has its share of the weights in
// its own core's cache. While other processes keep the cores busy, a team waits at every barrier for a delayed thread.
// So both ways are timed, and the faster one is used. The slower one is tried again from time to time, and less often
// if a trial costs more.

#pragma once

#include <algorithm>
#include <chrono>

namespace charloom::inference {

class ThreadChoice {
public:
    using Clock = std::chrono::steady_clock;
    using Seconds = std::chrono::duration<double>;

    // The number of threads to ask for now, at most `most`.
    int threads(int most, Clock::time_point now) const {
        if (most == 1 || alone_ == 0) return 1;
        if (together_ == 0) return most;
        bool together = together_ < alone_;
        return together != (now >= trial_) ? most : 1;
    }

    // `asked` threads were asked for and `came` took part. They took `time` for `steps` steps.
    void learn(int asked, int came, Seconds time, int steps, Clock::time_point now) {
        double a_step = time.count() / steps;
        if (asked > 1 && came == asked)
            mix(together_, a_step);
        else
            mix(alone_, a_step);
        bool slower = (came > 1) != (together_ < alone_);
        if (together_ > 0 && slower) trial_ = now + std::chrono::duration_cast<Clock::duration>(TRIALS * time);
    }

private:
    static constexpr double TRIALS = 40;  // trials take about a fortieth of the time

    // A running mean. A time that a scheduler's time slice interrupted counts as four times the mean at most.
    static void mix(double& mean, double a_step) {
        mean = mean == 0 ? a_step : 0.7 * mean + 0.3 * std::min(a_step, 4 * mean);
    }

    double alone_ = 0, together_ = 0;  // seconds for each step; 0 is unknown
    Clock::time_point trial_{};        // the time to try the slower way again
};

}  // namespace charloom::inference
