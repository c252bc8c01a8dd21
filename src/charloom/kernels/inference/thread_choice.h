// Measures whether a team of threads is faster than one thread at the moment.
//
// On an idle machine two threads generate up to six times as fast as one, because each has its share of the weights in
// its own core's cache. While other processes keep the cores busy, a team waits at every barrier for a delayed thread.
// So both ways are timed, and the faster one is used. The slower one is tried again from time to time, and less often
// if a trial costs more. A team is tried several times in a row, because its first times are too long: the scheduler may
// wake a sleeping thread on the core of its caller, and moves it to an idle core after some milliseconds.

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
        bool team = asked > 1 && came == asked;
        double& mean = team ? together_ : alone_;
        bool trial = is_slower(team);
        bool is_long = alone_ * steps > LONG;
        mean = mix(trial && is_long ? 0 : mean, time.count() / steps);  // long parts are few: an old mean says little
        if (!trial && !is_slower(team)) return;
        spent_ += time;
        if (team && is_long && is_slower(team) && ++tried_ < TEAM_TRIES) {
            trial_ = now;
            return;
        }
        trial_ = now + std::chrono::duration_cast<Clock::duration>(TRIALS * spent_);
        spent_ = {};
        tried_ = 0;
    }

    // The time to wait for a team before `steps` steps: a fortieth of the time that one thread needs.
    Seconds patience(int steps) const { return Seconds(alone_ * steps / TRIALS); }

private:
    static constexpr double TRIALS = 40;  // trials take about a fortieth of the time
    static constexpr double LONG = 4e-3;  // seconds; short parts are tried so often that one trial at a time is enough
    static constexpr int TEAM_TRIES = 8;  // in a row, if a team stays slower

    bool is_slower(bool team) const { return together_ > 0 && team != (together_ < alone_); }

    // A running mean. A time that a scheduler's time slice interrupted counts as twice the mean at most.
    static double mix(double mean, double a_step) {
        return mean == 0 ? a_step : 0.7 * mean + 0.3 * std::min(a_step, 2 * mean);
    }

    double alone_ = 0, together_ = 0;  // seconds for each step; 0 is unknown
    Clock::time_point trial_{};        // the time to try the slower way again
    Seconds spent_{};                  // by the current trial
    int tried_ = 0;                    // teams of the current trial
};

}  // namespace charloom::inference
