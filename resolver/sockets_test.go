package resolver

import (
	"net"
	"testing"
)

func TestSocketThatWasCutClosesWithoutAnError(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	s := newSockets((&net.Dialer{}).DialContext)
	conn, err := s.connect(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if n := s.cut(); n != 1 {
		t.Fatalf("cut %d sockets, want 1", n)
	}
	if err := conn.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}
