package metrics

import (
	"context"
	"errors"

	"gorm.io/gorm"

	"github.com/gorminfra/infra/internal/hook"
)

var (
	_ gorm.Plugin   = (*Metrics)(nil)
	_ hook.Observer = (*recorder)(nil)
)

// Name implements gorm.Plugin.
func (m *Metrics) Name() string { return "infra:metrics" }

// Initialize implements gorm.Plugin: it validates the Config, registers the
// metrics and begins to record. It does not block.
func (m *Metrics) Initialize(db *gorm.DB) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return errors.New("metrics: the plugin is closed: make another one with New")
	case m.used:
		return errors.New("metrics: the plugin already serves another *gorm.DB: make another one with New, under another Name")
	}
	if err := m.cfg.Validate(); err != nil {
		return err
	}
	m.cfg = m.cfg.withDefaults()
	if m.cfg.Disabled || m.cfg.Registerer == nil {
		m.used = true
		return nil
	}
	hub, err := hook.Attach(db)
	if err != nil {
		return err
	}
	rec := newRecorder(m.cfg)
	unregister, err := m.register(rec, newPartsCollector(m.cfg.Name, hub, &rec.dropped))
	if err != nil {
		return err
	}
	remove, err := hub.Register(rec)
	if err != nil {
		unregister()
		return err
	}
	m.used, m.stop = true, []func(){unregister, remove}
	m.live.Store(rec)
	return nil
}

// Observe implements hook.Observer.
func (rec *recorder) Observe(_ context.Context, r *hook.Record) {
	s := statement{outcome: outcomes[r.Outcome], duration: r.Duration, waited: r.Waited, retries: int(r.Retries)}
	if s.outcome == refused { // possibly before there was any text
		rec.statement(&s)
		return
	}
	if s.class = classOf(r.Err); s.class != classNone {
		s.outcome = failed
	} else if r.Background {
		s.outcome = background
	}
	s.table = tableOf(r)
	if r.Text != nil {
		s.operation = r.Text.Operation
	}
	if r.Node != nil {
		s.node = r.Node.Name
	}
	rec.statement(&s)
}

// outcomes are the names of the hook layer's outcomes here.
var outcomes = [...]outcome{
	hook.Database: database,
	hook.L1:       l1,
	hook.L2:       l2,
	hook.Shared:   shared,
	hook.Refused:  refused,
}

// tableOf names the table that the text is about. GORM's own name for it can be
// an alias, of which there may be any number, so it comes second.
func tableOf(r *hook.Record) string {
	if t := r.Text; t != nil {
		if len(t.Writes) > 0 {
			return t.Writes[0].Name
		}
		if len(t.Reads) > 0 {
			return t.Reads[0].Name
		}
		if t.Operation != unreadable {
			return "" // it is about no table
		}
	}
	return r.Table()
}
