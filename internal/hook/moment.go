package hook

import "time"

// Moment is a time on the process's monotonic clock, in nanoseconds. To read that
// clock takes half as long as time.Now, which reads the calendar too, and a Moment
// is a third of a time.Time. The zero value stands for no time.
type Moment int64

// epoch is the Moment 0. No reading is that early.
var epoch = time.Now().Add(-1)

// Now reads the clock.
func Now() Moment { return Moment(time.Since(epoch)) }

// MomentOf is t, which must have a reading of the monotonic clock, as time.Now gives.
func MomentOf(t time.Time) Moment { return Moment(t.Sub(epoch)) }

// Time is m by the calendar of now: it reads the clock.
func (m Moment) Time() time.Time { return time.Now().Add(m.Sub(Now())) }

// Add returns the moment d later.
func (m Moment) Add(d time.Duration) Moment { return m + Moment(d) }

// Sub returns how much later m is than o.
func (m Moment) Sub(o Moment) time.Duration { return time.Duration(m - o) }
