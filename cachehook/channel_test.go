package cachehook

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// A lease counts from the sending of the ping: what was published between that
// and its answer is heard only behind it.
func TestLeaseCountsFromThePingNotFromItsAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		c := &channel{
			lease: 500 * time.Millisecond, proven: make(chan struct{}),
			now: func() int64 { return int64(time.Since(began)) + 1 },
		}
		sent := c.now()
		time.Sleep(400 * time.Millisecond) //nolint:forbidigo // of the bubble: the answer's way
		c.answered(strconv.FormatInt(sent, 10))
		if !c.healthy() {
			t.Fatal("not healthy 400 ms after the ping")
		}
		time.Sleep(99 * time.Millisecond) //nolint:forbidigo // of the bubble
		if !c.healthy() {
			t.Fatal("not healthy 499 ms after the ping")
		}
		time.Sleep(time.Millisecond) //nolint:forbidigo // of the bubble
		if c.healthy() {
			t.Fatal("healthy 500 ms after the ping: the lease counts from its answer")
		}

		// An answer that comes later than its lease proves nothing any more, and
		// an older one takes nothing back.
		late := c.now()
		time.Sleep(600 * time.Millisecond) //nolint:forbidigo // of the bubble
		c.answered(strconv.FormatInt(late, 10))
		if c.healthy() {
			t.Fatal("healthy by an answer of 600 ms ago")
		}
		fresh := c.now()
		c.answered(strconv.FormatInt(fresh, 10))
		c.answered(strconv.FormatInt(late, 10))
		if !c.healthy() {
			t.Fatal("not healthy after an older answer")
		}
		for _, bad := range []string{"", "x", "0", "-1"} {
			c.proof.Store(0)
			c.answered(bad)
			if c.healthy() {
				t.Fatalf("healthy by %q", bad)
			}
		}
	})
}
