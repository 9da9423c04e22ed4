package resolver

import (
	"io"
	"net"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// refusal is how a server that shuts down, or starts, turns a new connection away.
type refusal uint8

const (
	resets    refusal = iota // ECONNRESET after the startup message
	hangsUp                  // EOF
	shutsDown                // 57P03
	isSilent                 // nothing
)

var refusalNames = [...]string{"reset", "EOF", "57P03", "silence"}

// door lets connections through to a server. While it is shut it turns new ones
// away, and those that are open live on, as those of a server that shuts down do
// for a while.
type door struct {
	l      net.Listener
	target string

	mu      sync.Mutex // guards the rest
	how     refusal
	left    int // how many it turns away before it opens by itself
	refused int
	waiting []net.Conn
	open    map[net.Conn]struct{}
	wg      sync.WaitGroup
}

func newDoor(t *testing.T, target string) *door {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	d := &door{l: l, target: target, open: map[net.Conn]struct{}{}}
	d.wg.Go(d.serve)
	t.Cleanup(func() {
		_ = l.Close()
		d.mu.Lock()
		for c := range d.open {
			_ = c.Close()
		}
		d.openUp()
		d.mu.Unlock()
		d.wg.Wait()
	})
	return d
}

func (d *door) addr() string { return d.l.Addr().String() }

// shut turns the next n connections away.
func (d *door) shut(how refusal, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.how, d.left, d.refused = how, n, 0
}

// openUp ends the wait of those who got no answer. The caller holds d.mu.
func (d *door) openUp() {
	for _, c := range d.waiting {
		_ = c.Close()
	}
	d.waiting = nil
}

// count returns how many were turned away since the door was shut.
func (d *door) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.refused
}

func (d *door) serve() {
	for {
		c, err := d.l.Accept()
		if err != nil {
			return
		}
		d.wg.Go(func() {
			if !d.turnAway(c) {
				d.let(c)
			}
		})
	}
}

// turnAway reports whether the door is shut for c.
func (d *door) turnAway(c net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left == 0 {
		return false
	}
	d.left--
	d.refused++
	defer func() {
		if d.left == 0 {
			d.openUp()
		}
	}()
	if d.how == isSilent {
		d.waiting = append(d.waiting, c)
		return true
	}
	_, _ = c.Read(make([]byte, 1024))
	switch d.how {
	case resets:
		_ = c.(*net.TCPConn).SetLinger(0)
	case shutsDown:
		message, _ := (&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "57P03", Message: "the database system is shutting down"}).Encode(nil)
		_, _ = c.Write(message)
	}
	_ = c.Close()
	return true
}

func (d *door) let(c net.Conn) {
	s, err := net.Dial("tcp", d.target)
	if err != nil {
		_ = c.Close()
		return
	}
	d.mu.Lock()
	d.open[c], d.open[s] = struct{}{}, struct{}{}
	d.mu.Unlock()
	var both sync.WaitGroup
	pass := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		_, _ = to.Close(), from.Close()
	}
	both.Go(func() { pass(c, s) })
	both.Go(func() { pass(s, c) })
	both.Wait()
	d.mu.Lock()
	delete(d.open, c)
	delete(d.open, s)
	d.mu.Unlock()
}
