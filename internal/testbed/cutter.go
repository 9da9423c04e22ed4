package testbed

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// Cutter forwards connections to a Postgres server and breaks them off behind a
// row, as the death of a server does between a row and the end of its result.
type Cutter struct {
	l      net.Listener
	target string
	mark   []byte
	left   atomic.Int64
	done   atomic.Int64
	wg     sync.WaitGroup

	mu   sync.Mutex // guards open
	open []net.Conn
}

// NewCutter forwards to target until the test ends. A row that holds mark is one
// to cut behind.
func NewCutter(tb TB, target, mark string) *Cutter {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("testbed: %v", err)
	}
	c := &Cutter{l: l, target: target, mark: []byte(mark)}
	c.wg.Go(c.serve)
	tb.Cleanup(func() {
		_ = l.Close()
		c.mu.Lock()
		for _, conn := range c.open {
			_ = conn.Close()
		}
		c.mu.Unlock()
		c.wg.Wait()
	})
	return c
}

// Addr is the cutter's own address.
func (c *Cutter) Addr() string { return c.l.Addr().String() }

// Cut breaks the next n connections on which a marked row passes, behind it.
func (c *Cutter) Cut(n int64) { c.left.Store(n) }

// Cuts returns how many were broken.
func (c *Cutter) Cuts() int64 { return c.done.Load() }

func (c *Cutter) serve() {
	for {
		client, err := c.l.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", c.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		c.mu.Lock()
		c.open = append(c.open, client, server)
		c.mu.Unlock()
		c.wg.Go(func() {
			_, _ = io.Copy(server, client)
			_ = server.Close()
		})
		c.wg.Go(func() {
			c.answer(client, server)
			_, _ = client.Close(), server.Close()
		})
	}
}

// answer passes on the server's messages: a letter, a length and its rest.
func (c *Cutter) answer(client io.Writer, server io.Reader) {
	var head [5]byte
	for {
		if _, err := io.ReadFull(server, head[:]); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(server, body); err != nil {
			return
		}
		if _, err := client.Write(append(head[:], body...)); err != nil {
			return
		}
		if head[0] == 'D' && bytes.Contains(body, c.mark) && c.left.Add(-1) >= 0 {
			c.done.Add(1)
			return
		}
	}
}
