package resolver

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
)

// sockets are the TCP connections to one node. A server that is frozen, or a
// network that loses everything, leaves them open without an answer, and
// database/sql has no way to end a query but its context: closing the socket
// makes a read that waits there fail at once, so that it can be tried elsewhere.
//
// It is safe for concurrent use. Nil knows no sockets.
type sockets struct {
	dial pgconn.DialFunc

	mu   sync.Mutex // guards the rest
	shut bool
	open map[*socket]struct{}
}

func newSockets(dial pgconn.DialFunc) *sockets {
	return &sockets{dial: dial, open: map[*socket]struct{}{}}
}

// socket leaves its registry when it is closed.
type socket struct {
	net.Conn
	of *sockets
}

func (c *socket) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	err := c.Conn.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil // cut was first, and its pool's Close is no failure
	}
	return err
}

// connect is a pgconn.DialFunc.
func (s *sockets) connect(ctx context.Context, network, addr string) (net.Conn, error) {
	if s.isShut() {
		return nil, net.ErrClosed
	}
	conn, err := s.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c := &socket{Conn: conn, of: s}
	s.mu.Lock()
	shut := s.shut
	if !shut {
		s.open[c] = struct{}{}
	}
	s.mu.Unlock()
	if shut {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	return c, nil
}

func (s *sockets) isShut() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shut
}

// set shuts the way to the node, or opens it again. What is open stays open.
func (s *sockets) set(shut bool) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shut = shut
}

// cut closes all connections and returns their number.
func (s *sockets) cut() int {
	if s == nil {
		return 0
	}
	s.mu.Lock()
	all := s.open
	s.open = map[*socket]struct{}{}
	s.mu.Unlock()
	for c := range all {
		_ = c.Conn.Close()
	}
	return len(all)
}
