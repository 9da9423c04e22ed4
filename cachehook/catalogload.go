package cachehook

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	catalogTimeout = 10 * time.Second
	catalogWait    = time.Second // a statement's, for it
	catalogBackoff = 5 * time.Second
	// catalogAge bounds how long DDL that no instance ran goes unnoticed.
	catalogAge = time.Minute
	// catalogProvisional is that of a catalogue which was read while the schema was
	// about to change, or without an answer of Redis.
	catalogProvisional = 5 * time.Second
)

// librarian keeps the catalogue: it is read when somebody first needs it, again
// after DDL, and when it is old.
type librarian struct {
	now  clock
	read func(ctx context.Context) (*catalog, error) // with its schema stamp
	fail func(error)
	kept func()
	life context.Context // ends with the cache

	present atomic.Pointer[catalog]
	retry   atomic.Int64 // on the clock: not before
	version atomic.Uint64

	mu      sync.Mutex // guards the rest
	loading chan struct{}
	stopped bool
	running sync.WaitGroup
}

// get returns the catalogue, or nil while there is none. With wait it waits for
// the one that is being read, a second at most and while ctx lives.
func (l *librarian) get(ctx context.Context, wait bool) *catalog {
	if c := l.fresh(l.now()); c != nil {
		return c
	}
	c := l.present.Load()
	done := l.load()
	if c != nil || !wait || done == nil {
		return c // an old one serves until there is a new one
	}
	patience := catalogWait
	if ctx.Value(patientKey{}) != nil {
		patience = catalogTimeout
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	case <-ctx.Done():
	}
	return l.present.Load()
}

// fresh returns the catalogue if it need not be read anew at now.
func (l *librarian) fresh(now int64) *catalog {
	c := l.present.Load()
	if c == nil || now-c.loaded >= int64(catalogAge) || c.schema == (stamp{}) && now-c.loaded >= int64(catalogProvisional) {
		return nil
	}
	return c
}

// load starts to read the catalogue unless that is under way, or has just
// failed, or the librarian is stopped: then it returns nil.
func (l *librarian) load() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.loading != nil {
		return l.loading
	}
	if l.stopped || l.now() < l.retry.Load() {
		return nil
	}
	done := make(chan struct{})
	l.loading = done
	l.running.Go(func() {
		l.loadNow()
		l.mu.Lock()
		l.loading = nil
		l.mu.Unlock()
		close(done)
	})
	return done
}

func (l *librarian) loadNow() {
	ctx, cancel := context.WithTimeout(l.life, catalogTimeout)
	defer cancel()
	for range 3 { // DDL may overtake the reading
		version, began := l.version.Load(), l.now()
		c, err := l.read(ctx)
		if err != nil {
			l.retry.Store(l.now() + int64(catalogBackoff))
			if l.life.Err() != nil {
				return
			}
			l.fail(fmt.Errorf("cachehook: read the catalogue: %w", err))
			return
		}
		c.loaded, c.kept = began, l.now()
		if l.keep(c, version) {
			if l.kept != nil {
				l.kept()
			}
			return
		}
	}
}

// keep makes c the catalogue unless what it was read from has been forgotten.
func (l *librarian) keep(c *catalog, version uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.version.Load() != version {
		return false
	}
	l.present.Store(c)
	return true
}

// forget drops the catalogue, after DDL.
func (l *librarian) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.version.Add(1)
	l.present.Store(nil)
}

// drop drops c if it is the catalogue still.
func (l *librarian) drop(c *catalog) { l.present.CompareAndSwap(c, nil) }

func (l *librarian) stop() {
	l.mu.Lock()
	l.stopped = true
	l.mu.Unlock()
	l.running.Wait()
}
