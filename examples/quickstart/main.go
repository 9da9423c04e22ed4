// Command quickstart serves a small shop on embedded SQLite, visits it as its
// customers would, and shows what the plugin saw and did. It needs no server
// and no cgo:
//
//	go run -C examples ./quickstart          # visit, print, stop
//	go run -C examples ./quickstart -serve   # and stay up
//
// Every figure it prints comes from the plugin's own counters or from the answers
// of the shop. It exits with 1 when something that it shows did not happen.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"gorm.io/gorm"

	"github.com/gorminfra/infra"
	"github.com/gorminfra/infra/cachehook"
	"github.com/gorminfra/infra/limithook"
	"github.com/gorminfra/infra/metrics"
	"github.com/gorminfra/infra/nplusone"
	"github.com/gorminfra/infra/slowlog"
)

func main() {
	serve := flag.Bool("serve", false, "stay up after the visit, until interrupted")
	addr := flag.String("addr", "127.0.0.1:0", "loopback `address` to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *addr, *serve); err != nil {
		fmt.Fprintln(os.Stderr, "\nquickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, addr string, serve bool) (err error) {
	dir, err := os.MkdirTemp("", "infra-quickstart-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	db, err := open(filepath.Join(dir, "shop.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeDB(db)) }()

	found := &reports{}
	registry := prometheus.NewRegistry()
	plugin := infra.New(infra.Config{
		Name:        "shop",
		Development: true,
		Cache:       cachehook.Config{Tables: map[string]cachehook.Rule{"products": {TTL: time.Minute}}},
		Limits: limithook.Config{
			PerUser:  limithook.PerMinute(60),
			Global:   limithook.PerMinute(10_000),
			Identity: func(r *http.Request) string { return r.Header.Get("X-User") },
		},
		NPlusOne: nplusone.Config{Output: found},
		SlowLog:  slowlog.Config{Threshold: 50 * time.Millisecond, Explain: slowlog.Plan},
		Metrics:  metrics.Config{Registerer: registry},
		Logger:   slog.New(slog.DiscardHandler), // it is printed below instead
	})
	if err := db.Use(plugin); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plugin.Close()) }()

	mux := http.NewServeMux()
	mux.Handle("/", plugin.Middleware(shop{db}.routes()))
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() {
		shutdown, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err = errors.Join(err, server.Shutdown(shutdown))
		if e := <-served; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
	}()

	base := "http://" + l.Addr().String()
	fmt.Printf("A shop with %d products, %d customers and %d orders on SQLite, at %s", products, customers, orders, base)
	if serve {
		fmt.Println()
	} else {
		fmt.Println(" until the visit is over (-serve: until Ctrl-C)")
	}
	v := visit{ctx: ctx, base: base, plugin: plugin, reports: found}
	if err := v.all(); err != nil {
		return err
	}
	if serve {
		fmt.Printf("\nStill up: curl -i -H 'X-User: you' %s/products/7   (and %s/metrics). Stop with Ctrl-C.\n", base, base)
		select {
		case <-ctx.Done():
		case err := <-served:
			served <- err
		}
	}
	return nil
}

func closeDB(db *gorm.DB) error {
	pool, err := db.DB()
	if err != nil {
		return err
	}
	return pool.Close()
}
