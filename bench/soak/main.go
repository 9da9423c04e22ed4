// Command soak keeps a part under load while its servers are killed, hung and failed
// over, and holds it to the bounds that are documented for that:
//
//	go run -C bench ./soak [-area limits] [-mode local|open|closed] [-outage 2s]
//
// It starts its own servers, prints for each fault the longest wait of a query, the
// fullest window and the time to recover, and exits with 1 if a bound is broken.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gorminfra/infra/limithook"
)

func main() {
	area := flag.String("area", "limits", "limits")
	mode := flag.String("mode", "local", "what applies while Redis is away: local, open or closed")
	outage := flag.Duration("outage", 2*time.Second, "how long a server is away, more than a second")
	flag.Parse()
	modes := map[string]limithook.Mode{"local": limithook.Local, "open": limithook.Open, "closed": limithook.Closed}
	m, ok := modes[*mode]
	if *area != "limits" || !ok || *outage < time.Second {
		flag.Usage()
		os.Exit(2)
	}
	redis.SetLogger(silent{}) // lost connections are the subject
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	broken, err := limits(ctx, m, *outage)
	stop()
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(2)
	case broken:
		os.Exit(1)
	}
}

// silent is a logger for the client of Redis.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}
