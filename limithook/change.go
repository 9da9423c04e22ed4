package limithook

import (
	"errors"
	"fmt"
	"slices"
)

// SetLimits changes the user's and the global limit without a restart, from the
// next decision on. A zero one is no limit. It changes this process alone: tell
// each. Until all have been told, each goes by what it was told, on one count.
//
// What was admitted before counts under the new limits as far as the windows of
// the old ones reach back: after a window has become longer, it takes until one
// has passed before no more than Max are admitted in it. Refusals that were
// remembered are forgotten, and unspent leases go back to Redis in the background.
//
// It reports a limit that is not valid, and then changes nothing. The number of
// shards cannot be changed. Before the plugin is used, or with Config.Disabled,
// there is nothing to change and it says so.
func (l *Limiter) SetLimits(perUser, global Limit) error {
	return l.change(func(cfg *Config) error {
		if cfg.Global.Shards != global.Shards {
			return fmt.Errorf("limithook: Global.Shards is %d: must stay %d while it is in use", global.Shards, cfg.Global.Shards)
		}
		cfg.PerUser, cfg.Global = perUser, global
		return nil
	})
}

// SetRule is [Limiter.SetLimits] for the rule of that name.
func (l *Limiter) SetRule(name string, rate Limit) error {
	return l.change(func(cfg *Config) error {
		i, err := l.terms.Load().rule(name)
		if err != nil {
			return err
		}
		cfg.Rules = slices.Clone(cfg.Rules)
		cfg.Rules[i].Rate = rate
		return nil
	})
}

func (l *Limiter) change(set func(*Config) error) error {
	if err := l.swap(set); err != nil || l.changed == nil {
		return err
	}
	return l.changed()
}

func (l *Limiter) swap(set func(*Config) error) error {
	if l.memory == nil && l.shared == nil {
		return errors.New("limithook: the limits are disabled, or not in use yet")
	}
	l.changing.Lock()
	defer l.changing.Unlock()
	cfg := l.terms.Load().config(l.cfg)
	if err := set(&cfg); err != nil {
		return err
	}
	if err := cfg.Validate(); err != nil {
		return err
	}
	if l.off.Load() { // closed
		return nil
	}
	before := l.terms.Swap(newTerms(cfg))
	before.retired.Store(true)
	if l.shared != nil {
		l.shared.leave(before)
	}
	return nil
}

// config returns cfg with the limits in force.
func (t *terms) config(cfg Config) Config {
	cfg.PerUser, cfg.Global, cfg.Rules = t.user().Limit, t.global().Limit, t.rules
	return cfg
}
