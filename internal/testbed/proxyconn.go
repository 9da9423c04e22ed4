package testbed

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// trigger is a pattern that cuts the connection it is seen on.
type trigger struct {
	pattern []byte
	after   bool // only when the target answers
}

// proxyConn is one client's connection and the one to the target behind it.
type proxyConn struct {
	proxy  *Proxy
	target string
	client *net.TCPConn
	ctx    context.Context // ends with the connection
	cancel context.CancelFunc

	doomed     atomic.Bool // the target's next answer resets the connection
	halfClosed atomic.Bool // nothing more goes to the client

	mu     sync.Mutex // guards server
	server *net.TCPConn
}

// run forwards until both sides have ended, or one has failed.
func (c *proxyConn) run() {
	defer c.cancel()
	defer c.client.Close()
	if !c.proxy.pass(c.ctx, ToServer) { // a black hole swallows the handshake too
		return
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(c.ctx, "tcp", c.target)
	if err != nil {
		c.reset() // the nearest to a refusal after Accept
		return
	}
	server := conn.(*net.TCPConn)
	defer server.Close()
	c.mu.Lock()
	c.server = server
	c.mu.Unlock()
	if c.ctx.Err() != nil { // reset before it knew of server
		return
	}
	var wg sync.WaitGroup
	wg.Add(2)
	go func() { defer wg.Done(); c.forward(ToServer, server, c.client) }()
	go func() { defer wg.Done(); c.forward(ToClient, c.client, server) }()
	wg.Wait()
}

// reset ends the connection on both sides with a RST where the kernel allows.
func (c *proxyConn) reset() {
	c.cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.client.SetLinger(0)
	_ = c.client.Close()
	if c.server != nil {
		_ = c.server.SetLinger(0)
		_ = c.server.Close()
	}
}

func (c *proxyConn) halfClose() {
	c.halfClosed.Store(true)
	_ = c.client.CloseWrite()
}

// packet is what one read returned, and when it may go on.
type packet struct {
	data []byte
	due  time.Time
}

// forward copies from src to dst. Reading and writing are apart, so that a
// delay adds latency and takes no bandwidth.
func (c *proxyConn) forward(d Direction, dst, src *net.TCPConn) {
	packets := make(chan packet, 64)
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		defer close(packets)
		c.read(src, packets)
	}()
	defer wg.Wait()
	for p := range packets {
		if !c.write(d, dst, p) {
			c.reset() // also ends the reader
			return
		}
	}
	if c.ctx.Err() == nil && c.proxy.pass(c.ctx, d) {
		_ = dst.CloseWrite() // pass EOF on; the other direction may live
	}
}

func (c *proxyConn) read(src io.Reader, packets chan<- packet) {
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			p := packet{data: bytes.Clone(buf[:n])}
			if delay := time.Duration(c.proxy.delay.Load()); delay > 0 {
				p.due = time.Now().Add(delay)
			}
			select {
			case packets <- p:
			case <-c.ctx.Done():
				return
			}
		}
		if err != nil {
			if err != io.EOF {
				c.reset() // the other side must learn of it
			}
			return
		}
	}
}

// await waits until due and reports whether the connection lives. The runtime's
// timers may be late by a whole millisecond where nothing else happens, which for a
// short delay is as much again: so the last part is slept exactly.
func (c *proxyConn) await(due time.Time) bool {
	if wait := time.Until(due) - exactly; wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.ctx.Done():
		}
	}
	if c.ctx.Err() != nil {
		return false
	}
	sleepExactly(time.Until(due))
	return true
}

// exactly is how much of a delay is slept exactly.
const exactly = 2500 * time.Microsecond

// write passes one packet on and reports whether the connection lives.
func (c *proxyConn) write(d Direction, dst io.Writer, p packet) bool {
	if !p.due.IsZero() && !c.await(p.due) {
		return false
	}
	if !c.proxy.pass(c.ctx, d) {
		return false
	}
	switch d {
	case ToServer:
		if t := c.proxy.takeTrigger(p.data); t != nil {
			if !t.after {
				return false
			}
			c.doomed.Store(true)
		}
	case ToClient:
		if c.doomed.Load() {
			return false
		}
		if c.halfClosed.Load() {
			return true
		}
	}
	// Counted first, so that whoever has received a byte finds it counted.
	c.proxy.bytes[d].Add(int64(len(p.data)))
	n, err := dst.Write(p.data)
	c.proxy.bytes[d].Add(int64(n - len(p.data)))
	return err == nil || (d == ToClient && c.halfClosed.Load())
}

// pass waits until data may go in direction d and reports false if ctx ended.
func (p *Proxy) pass(ctx context.Context, d Direction) bool {
	for {
		p.mu.Lock()
		gate := p.gates[d]
		p.mu.Unlock()
		select {
		case <-gate:
		case <-ctx.Done():
			return false
		}
		p.mu.Lock()
		same := p.gates[d] == gate
		p.mu.Unlock()
		if same {
			return ctx.Err() == nil
		}
	}
}

// takeTrigger returns the trigger if data holds its pattern, and disarms it.
func (p *Proxy) takeTrigger(data []byte) *trigger {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.trigger
	if t == nil || !bytes.Contains(data, t.pattern) {
		return nil
	}
	p.trigger = nil
	return t
}
