package cachehook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// channel hears which tags other processes mark and bump, and proves that it
// hears. A ping is a message to itself, published as those of the tags are: to the
// server that commands go to; on a Cluster see shard. A subscription delivers in order, so one that is
// heard says that everything published there before it has arrived. A PING on the
// subscription would prove less: after a failover that connection can be to the
// old master still, which lives, answers, and is told of nothing. What the mirror
// knows counts for one Lease from the sending of the last ping that was heard, and
// no longer.
//
// It reads the connection itself: the client's own channel drops messages when
// it is full, and its silent reconnecting would hide a gap. Every subscription
// that Redis confirms flushes the mirror.
type channel struct {
	name   string
	open   func(ctx context.Context) (*line, error)
	lease  time.Duration
	now    clock
	logger *slog.Logger

	confirmed func()           // a subscription begins, or has missed something
	heard     func(tag string) // a tag was marked or bumped
	lost      func()           // the subscription has ended

	proof  atomic.Int64 // when the last ping that was heard was sent; 0: none
	missed atomic.Int64 // since when the log says that the channel is lost; 0: it does not
	proven chan struct{}
	hurry  chan struct{} // has one slot: somebody waits for a ping
	once   sync.Once
	sends  sync.WaitGroup // pings that Redis has not taken yet
}

// line is one subscription, which begins with the first call of Receive.
type line struct {
	sub *redis.PubSub
	// ping publishes a ping on the way that messages take.
	ping func(ctx context.Context, ping string) error
	// read takes a message apart, in the order in which they come. It is not whole when
	// something that was said between it and the last one has not come.
	read func(m *redis.Message) (text string, ping, whole bool)

	begun     chan struct{} // closed when the subscription is confirmed
	confirmed atomic.Int64  // when it was; 0: not yet
	failure   atomic.Pointer[error]
}

// oneServer opens lines at the server that the client's commands go to.
func oneServer(client redis.UniversalClient, name, pings string) func(context.Context) (*line, error) {
	return func(ctx context.Context) (*line, error) {
		return &line{
			begun: make(chan struct{}),
			sub:   client.Subscribe(ctx, name, pings),
			ping:  func(ctx context.Context, ping string) error { return client.Publish(ctx, pings, ping).Err() },
			read:  func(m *redis.Message) (string, bool, bool) { return m.Payload, m.Channel == pings, true },
		}, nil
	}
}

// healthy reports whether the channel has proven itself within the lease.
func (c *channel) healthy() bool {
	p := c.proof.Load()
	return p != 0 && c.now()-p < int64(c.lease)
}

// caughtUp waits until all that was said before the call has been heard. It reports
// false when that does not show in time.
func (c *channel) caughtUp(ctx context.Context) bool {
	asked := c.now()
	for end := time.Now().Add(catchUp); c.proof.Load() <= asked; {
		select {
		case c.hurry <- struct{}{}:
		default:
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(watchPause):
		}
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// catchUp bounds the waiting for a ping.
const catchUp = time.Second

// run keeps a subscription until ctx ends.
func (c *channel) run(ctx context.Context) {
	defer c.sends.Wait()
	pause := firstPause
	for ctx.Err() == nil {
		began := c.now()
		err := c.session(ctx)
		if ctx.Err() != nil {
			return
		}
		c.lost()
		if c.missed.CompareAndSwap(0, max(c.now(), 1)) {
			c.logger.Warn("cachehook: invalidation channel lost; each hit in memory asks Redis until it is back", "error", err)
		}
		if c.proof.Swap(0) >= began {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// session subscribes and listens until something fails.
func (c *channel) session(ctx context.Context) error {
	l, err := c.open(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var pinging sync.WaitGroup
	pinging.Go(func() { c.pingLoop(ctx, l, cancel) })
	defer pinging.Wait()
	defer cancel(nil)
	for {
		msg, err := l.sub.Receive(ctx)
		if err != nil {
			return cmp.Or(context.Cause(ctx), err)
		}
		switch m := msg.(type) {
		case *redis.Subscription:
			if strings.HasSuffix(m.Kind, "unsubscribe") {
				return errElsewhere // the server ends it: the slot has moved
			}
			c.proof.Store(0)
			c.confirmed()
			if l.confirmed.Swap(c.now()) == 0 {
				close(l.begun)
			}
		case *redis.Message:
			text, ping, whole := l.read(m)
			if !whole {
				c.confirmed()
			}
			if ping {
				c.answered(text)
				continue
			}
			for tag := range strings.SplitSeq(text, tagSeparator) {
				c.heard(tag)
			}
		}
	}
}

// answered takes the proof that a heard ping is: its payload is its time.
func (c *channel) answered(payload string) {
	sent, err := strconv.ParseInt(payload, 10, 64)
	if err != nil || sent <= 0 {
		return
	}
	c.proof.Store(max(sent, c.proof.Load()))
	c.once.Do(func() { close(c.proven) })
	if since := c.missed.Load(); since != 0 && c.missed.CompareAndSwap(since, 0) {
		c.logger.Info("cachehook: invalidation channel is back", "after", time.Duration(c.now()-since))
	}
}

// maxPings bounds the pings that a slow Redis has not taken yet.
const maxPings = 8

// pingLoop sends pings until ctx ends, and closes the subscription then, or when
// none has been heard for so long that the connection must be dead or to another
// server.
func (c *channel) pingLoop(ctx context.Context, l *line, end context.CancelCauseFunc) {
	defer l.sub.Close() //nolint:errcheck // what it could tell is told by Receive
	interval := max(c.lease/4, 5*time.Millisecond)
	patience := max(4*c.lease, 2*time.Second)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	slots := make(chan struct{}, maxPings)
	began := c.now()
	select { // a ping that comes before its subscription is for nothing
	case <-ctx.Done():
		return
	case <-l.begun:
	case <-tick.C:
	}
	for {
		sent := c.now()
		if sent-max(c.proof.Load(), began) > int64(patience) {
			end(l.unheard(patience))
			return
		}
		select {
		case slots <- struct{}{}:
			c.sends.Go(func() {
				defer func() { <-slots }()
				// That it failed shows in that it is not heard.
				err := l.ping(ctx, strconv.FormatInt(sent, 10))
				if err == nil {
					return
				}
				l.failure.Store(&err)
				if at := l.confirmed.Load(); at != 0 && sent > at && errors.Is(err, errElsewhere) {
					end(err)
				}
			})
		default:
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-c.hurry:
		}
	}
}

// unheard says that no ping was heard, and what the last one met that failed.
func (l *line) unheard(patience time.Duration) error {
	if err := l.failure.Load(); err != nil {
		return fmt.Errorf("no ping heard for %v: %w", patience, *err)
	}
	return fmt.Errorf("no ping heard for %v", patience)
}
