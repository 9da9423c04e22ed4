package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Direction is one of the two ways through a [Proxy].
type Direction uint8

// The two directions of a [Proxy].
const (
	ToServer Direction = iota // from the client to the target
	ToClient                  // from the target to the client
)

// Proxy forwards TCP connections on a loopback port to a target and fails on
// demand. Its methods may be called from several goroutines.
type Proxy struct {
	port int

	accepted atomic.Int64
	bytes    [2]atomic.Int64 // forwarded, by Direction
	delay    atomic.Int64    // nanoseconds
	wg       sync.WaitGroup  // all goroutines

	mu       sync.Mutex // guards the fields below
	target   string
	listener net.Listener // nil while new connections are refused
	conns    map[*proxyConn]struct{}
	gates    [2]chan struct{} // by Direction: closed while data may pass
	trigger  *trigger
	closed   bool
}

// StartProxy listens on a free loopback port and forwards to target
// ("127.0.0.1:5432"). The target need not be up. The caller closes the proxy.
func StartProxy(target string) (*Proxy, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	p := &Proxy{port: port, target: target, conns: make(map[*proxyConn]struct{})}
	for i := range p.gates {
		p.gates[i] = openGate()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p, p.listen()
}

func openGate() chan struct{} {
	gate := make(chan struct{})
	close(gate)
	return gate
}

// Port returns the proxy's port on 127.0.0.1. It stays the same over Cut and
// Restore.
func (p *Proxy) Port() int { return p.port }

// Addr returns "127.0.0.1:port".
func (p *Proxy) Addr() string { return address(p.port) }

// ProxyStats are counters since the proxy's start.
type ProxyStats struct {
	Accepted int64 // connections accepted
	Active   int   // connections open now
	ToServer int64 // bytes forwarded to the target
	ToClient int64 // bytes forwarded to clients
}

// Stats returns the present counters.
func (p *Proxy) Stats() ProxyStats {
	p.mu.Lock()
	active := len(p.conns)
	p.mu.Unlock()
	return ProxyStats{
		Accepted: p.accepted.Load(), Active: active,
		ToServer: p.bytes[ToServer].Load(), ToClient: p.bytes[ToClient].Load(),
	}
}

// SetDelay holds everything that arrives from now on for d before it is passed
// on, in each direction: a round trip takes 2d longer. Bandwidth is not
// limited. Zero ends it.
func (p *Proxy) SetDelay(d time.Duration) { p.delay.Store(int64(d)) }

// SetTarget sends new connections to another target and resets the present
// ones.
func (p *Proxy) SetTarget(target string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errProxyClosed
	}
	p.target = target
	p.reset()
	return nil
}

// Refuse refuses new connections until Restore; present ones go on, as with a
// server that has no slots left or is shutting down.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse()
}

// Cut resets all connections and refuses new ones until Restore.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse()
	p.reset()
}

// Reset resets all present connections; new ones are served.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reset()
}

// Blackhole keeps connections open and accepts new ones, but passes nothing on
// in the given directions, both if none is given. As on a network that loses
// packets for a while, what was sent arrives after Restore.
func (p *Proxy) Blackhole(directions ...Direction) {
	if len(directions) == 0 {
		directions = []Direction{ToServer, ToClient}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range directions {
		select {
		case <-p.gates[d]:
			p.gates[d] = make(chan struct{})
		default:
		}
	}
}

// HalfClose ends the stream to the client on all present connections, as a
// server that closes its sending side does: the client reads EOF, and what it
// sends still arrives.
func (p *Proxy) HalfClose() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.halfClose()
	}
}

// CutBefore resets the connection on which a client next sends pattern
// (case-sensitive, within one packet), before the target sees it: the request
// is lost. One shot; it replaces an earlier CutBefore or CutAfter.
func (p *Proxy) CutBefore(pattern string) { p.setTrigger(&trigger{pattern: []byte(pattern)}) }

// CutAfter is [Proxy.CutBefore], but the target receives the request and
// answers it, and the connection is reset in place of the answer: the outcome
// is unknown to the client. The pattern "commit" makes it a lost COMMIT.
func (p *Proxy) CutAfter(pattern string) {
	p.setTrigger(&trigger{pattern: []byte(pattern), after: true})
}

func (p *Proxy) setTrigger(t *trigger) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trigger = t
}

// Restore ends all faults. Connections that a black hole held go on.
func (p *Proxy) Restore() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errProxyClosed
	}
	p.delay.Store(0)
	p.trigger = nil
	for _, gate := range p.gates {
		select {
		case <-gate:
		default:
			close(gate)
		}
	}
	if p.listener == nil {
		return p.listen()
	}
	return nil
}

// Close resets all connections and waits for the proxy's goroutines. It is
// idempotent.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	p.refuse()
	p.reset()
	p.mu.Unlock()
	p.wg.Wait()
	return nil
}

var errProxyClosed = errors.New("testbed: proxy is closed")

// listen must be called with mu held.
func (p *Proxy) listen() error {
	l, err := net.Listen("tcp", p.Addr())
	if err != nil {
		return fmt.Errorf("testbed: proxy: %w", err)
	}
	p.listener = l
	p.wg.Add(1)
	go p.serve(l)
	return nil
}

// refuse must be called with mu held.
func (p *Proxy) refuse() {
	if p.listener != nil {
		_ = closeListener(p.listener)
		p.listener = nil
	}
}

// reset must be called with mu held.
func (p *Proxy) reset() {
	for c := range p.conns {
		c.reset()
	}
}

func (p *Proxy) serve(l net.Listener) {
	defer p.wg.Done()
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		if p.listener != l { // refused between Accept and here
			_ = client.(*net.TCPConn).SetLinger(0)
			_ = client.Close()
			p.mu.Unlock()
			return
		}
		ctx, cancel := context.WithCancel(context.Background())
		c := &proxyConn{proxy: p, client: client.(*net.TCPConn), target: p.target, ctx: ctx, cancel: cancel}
		p.conns[c] = struct{}{}
		p.accepted.Add(1)
		p.wg.Add(1)
		p.mu.Unlock()
		go func() {
			defer p.wg.Done()
			c.run()
			p.mu.Lock()
			delete(p.conns, c)
			p.mu.Unlock()
		}()
	}
}
