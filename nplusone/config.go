package nplusone

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"
)

// Config says what is found and who is told. The zero value finds and logs.
type Config struct {
	// Name tells the databases of one process apart, in the attribute db of the
	// log lines. Default "default".
	Name string

	// Threshold is the number of statements of one shape from one place, in one
	// scope, that make a finding. Default 5, at least 2.
	Threshold int

	// Development keeps the place in the code of each statement, which costs
	// about 400 ns, and up to three samples of the parameters. Without it
	// statements are told apart by their shape alone, and no parameter is ever
	// kept, logged or reported.
	Development bool

	// OnFinding is called for each finding when its scope is finished, on the
	// goroutine that finishes it. It may panic, for those who want to fail.
	OnFinding func(Finding)

	// Output receives the text of each finished scope's report that has
	// findings, for a terminal; they are not logged then. Default: [os.Stderr]
	// where Development is set and Logger is not, otherwise none.
	Output io.Writer

	// Logger receives a warning for each finding, unless there is an Output.
	// Default [slog.Default].
	Logger *slog.Logger

	// LogEvery is the time in which one finding of one route is logged once.
	// Default one minute; negative: it is logged for each scope.
	LogEvery time.Duration

	// Disabled collects nothing.
	Disabled bool
}

const defaultThreshold = 5

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	if c.Threshold != 0 && c.Threshold < 2 {
		errs = append(errs, fmt.Errorf("nplusone: Threshold is %d: must be 0 (for %d) or at least 2", c.Threshold, defaultThreshold))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	c.Name = cmp.Or(c.Name, "default")
	c.Threshold = cmp.Or(c.Threshold, defaultThreshold)
	c.LogEvery = cmp.Or(c.LogEvery, time.Minute)
	if c.Output == nil && c.Logger == nil && c.Development {
		c.Output = os.Stderr
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}
