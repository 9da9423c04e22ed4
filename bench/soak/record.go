package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorminfra/infra/limithook"
)

// span is an admission between two instants, in nanoseconds since the start.
type span struct{ before, after int64 }

// record is what the callers saw.
type record struct {
	watch     atomic.Bool // the fault has begun: waits count from now on
	recovered time.Duration

	mu                sync.Mutex // guards what follows
	queries, degraded int
	longest, late     time.Duration
	users             [][]span
	all               []span
}

var (
	start = time.Now()
	runs  atomic.Int64
)

// digits names a run's limits.
func digits() string { return strconv.FormatInt(runs.Load(), 10) }

// ask asks for one user until ctx ends.
func (r *record) ask(ctx context.Context, l *limithook.Limiter, user int) {
	who := limithook.WithUser(context.Background(), strconv.Itoa(user))
	for ctx.Err() == nil {
		begun := time.Now()
		d, err := l.Decide(who, 1)
		ended := time.Now()
		r.mu.Lock()
		r.queries++
		if r.watch.Load() {
			r.longest = max(r.longest, ended.Sub(begun))
		}
		if d.Degraded {
			r.degraded++
		}
		if d.Allowed && err == nil {
			s := span{int64(begun.Sub(start)), int64(ended.Sub(start))}
			r.users[user] = append(r.users[user], s)
			r.all = append(r.all, s)
		}
		r.mu.Unlock()
		pause(ctx, 3*time.Millisecond)
	}
}

// watchTimers finds how late this machine is: nothing that ends by a timer of
// theirs can be earlier. As many have to watch as ask, since who waits has to get a
// processor among them.
func (r *record) watchTimers(ctx context.Context) {
	for ctx.Err() == nil {
		begun := time.Now()
		time.Sleep(timeout) //nolint:forbidigo // the subject
		late := time.Since(begun) - timeout
		r.mu.Lock()
		if r.watch.Load() {
			r.late = max(r.late, late)
		}
		r.mu.Unlock()
	}
}

// fullest is the largest number of admissions that lie in one window for certain,
// whenever within its span each was made.
func fullest(spans []span) (most int) {
	slices.SortFunc(spans, func(a, b span) int { return int(a.after - b.after) })
	first := 0
	for i, s := range spans {
		for spans[first].after <= s.after-int64(window) {
			first++
		}
		n := 0
		for _, other := range spans[first : i+1] {
			if other.before > s.after-int64(window) {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

// print writes a row and reports whether a bound is broken.
func (r *record) print(w io.Writer, f fault, mode limithook.Mode) (broken bool) {
	runs.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	wait := timeout + r.late + leeway
	windows := f.windows
	if r.degraded > 0 {
		windows = max(windows, 2) // this machine was too busy for Redis
	}
	if mode == limithook.Closed { // nothing is admitted without Redis
		windows = max(1, f.windows-1)
	}
	ofUser := 0
	for _, spans := range r.users {
		ofUser = max(ofUser, fullest(spans))
	}
	ofAll := fullest(r.all)
	full := ofUser > windows*perUser || ofAll > windows*global
	if mode == limithook.Open && r.degraded > 0 {
		full = false // nothing is promised
	}
	verdict := ""
	if r.longest > wait {
		verdict += " WAITED"
	}
	if full {
		verdict += " ABOVE"
	}
	fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%v\t%v\t%d of a user, %d of all\t%d, %d\t%v\t%s\n", f.name, r.queries, len(r.all), r.degraded,
		r.longest.Round(100*time.Microsecond), wait.Round(100*time.Microsecond), ofUser, ofAll, windows*perUser, windows*global,
		r.recovered.Round(time.Millisecond), verdict)
	return verdict != ""
}
