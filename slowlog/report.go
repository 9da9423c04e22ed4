package slowlog

import (
	"fmt"
	"log/slog"
	"time"
)

// report hands e to the reporting goroutine, or counts it where that has no room.
func (l *Log) report(e Entry) {
	select {
	case l.reports <- e:
	default:
		l.count.unlogged.Add(1)
	}
}

// reportLoop is the goroutine that calls Logger and Sink. After Close it ends
// when the explaining one has ended and nothing waits.
func (l *Log) reportLoop() {
	defer close(l.reportsDone)
	for {
		select {
		case e := <-l.reports:
			l.deliver(e)
		case <-l.explainsDone:
			for {
				select {
				case e := <-l.reports:
					l.deliver(e)
				default:
					return
				}
			}
		}
	}
}

func (l *Log) deliver(e Entry) {
	e.resolve()
	l.guarded(func() { l.logger().LogAttrs(l.ctx, slog.LevelWarn, "slow statement", l.attributes(&e)...) })
	if l.cfg.Sink != nil {
		l.guarded(func() { l.cfg.Sink(l.ctx, e) })
	}
}

// guarded calls f, which is the program's and may panic.
func (l *Log) guarded(f func()) {
	defer l.recovered()
	f()
}

func (l *Log) attributes(e *Entry) []slog.Attr {
	attrs := make([]slog.Attr, 0, 20)
	attrs = append(attrs,
		slog.String("db", l.cfg.Name),
		slog.Duration("duration", e.Duration.Round(time.Microsecond)),
		slog.String("operation", e.Operation),
		slog.String("statement", e.Shape),
		slog.String("fingerprint", fmt.Sprintf("%016x", e.Fingerprint)),
		slog.Uint64("seen", e.Seen),
		slog.String("outcome", e.Outcome),
	)
	if e.Rows >= 0 {
		attrs = append(attrs, slog.Int64("rows", e.Rows))
	}
	for _, a := range []struct{ key, value string }{
		{"table", e.Table}, {"node", e.Node}, {"error", e.Error}, {"site", e.Site.String()}, {"route", e.Route}, {"user", e.User}, {"trace_id", e.TraceID},
	} {
		if a.value != "" {
			attrs = append(attrs, slog.String(a.key, a.value))
		}
	}
	if e.Waited > 0 {
		attrs = append(attrs, slog.Duration("waited", e.Waited.Round(time.Microsecond)))
	}
	if e.Background {
		attrs = append(attrs, slog.Bool("background", true))
	}
	if e.Plan != nil {
		if findings := e.Plan.details(); len(findings) > 0 {
			attrs = append(attrs, slog.Any("findings", findings))
		}
		if !e.Plan.At.Before(e.Time) { // made for this entry: written once
			attrs = append(attrs, slog.String("plan", e.Plan.Text))
		}
	}
	return attrs
}
