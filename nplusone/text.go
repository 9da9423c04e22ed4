package nplusone

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// Text returns the report for a terminal, without colours.
func (r Report) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s, %s in the database, %s\n", orUnnamed(r.Route), plural(r.Statements, "statement"), short(r.Time), findingsWord(len(r.Findings)))
	for i := range r.Findings {
		b.WriteByte('\n')
		r.Findings[i].write(&b, i+1)
	}
	var notes []string
	if r.Cached > 0 {
		notes = append(notes, plural(r.Cached, "statement")+" answered from memory")
	}
	if r.Failed > 0 {
		notes = append(notes, plural(r.Failed, "statement")+" failed")
	}
	for _, ig := range r.Ignored {
		note := plural(ig.Statements, "statement") + " ignored"
		if ig.Reason != "" {
			note += ": " + ig.Reason
		}
		notes = append(notes, note)
	}
	if r.Dropped > 0 {
		notes = append(notes, plural(r.Dropped, "statement")+" not looked at: the scope has too many different ones")
	}
	if len(r.Findings) > 0 && !r.CallSites {
		notes = append(notes, "lines are known with Config.Development")
	}
	if len(notes) > 0 {
		b.WriteByte('\n')
		for _, n := range notes {
			fmt.Fprintf(&b, "note     %s\n", n)
		}
	}
	return b.String()
}

// String returns Text, so that a report can be printed as it is.
func (r Report) String() string { return r.Text() }

// WriteTo writes Text.
func (r Report) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, r.Text())
	return int64(n), err
}

// String returns the finding for a terminal, without colours.
func (f Finding) String() string {
	var b strings.Builder
	f.write(&b, 0)
	return b.String()
}

func (f *Finding) write(b *strings.Builder, number int) {
	if number > 0 {
		fmt.Fprintf(b, "%d. ", number)
	}
	switch f.Kind {
	case DuplicateQuery:
		fmt.Fprintf(b, "duplicate query: asked %d times with the same parameters", f.Count)
	case BatchThis:
		fmt.Fprintf(b, "batch this: %d statements, one row at a time", f.Count)
	default:
		fmt.Fprintf(b, "n+1: asked %d times in a loop, with %d different parameters", f.Count, f.Distinct)
	}
	fmt.Fprintf(b, "\n   %s\n", cut(f.Statement, 160))
	for i, fix := range f.Fixes {
		label := "fix"
		if i > 0 {
			label = "or"
		}
		text := fix.Note
		if fix.Code != "" {
			text = fix.Code + "  " + fix.Note
		}
		if fix.Parent != nil {
			text += ", " + fix.Parent.String()
		}
		if fix.Relation != "" && fix.Confidence == Likely {
			text += " (likely)"
		}
		line(b, label, text)
	}
	if f.Loop != nil {
		line(b, "loop", f.Loop.String()+" in "+shortFunction(f.Loop.Function))
	}
	if f.Query != nil && *f.Query != *f.Loop {
		line(b, "query", f.Query.String()+" in "+shortFunction(f.Query.Function))
	}
	line(b, "cost", fmt.Sprintf("%s, %.0f%% of the database time; about %s would be saved", short(f.Time), 100*f.Share, short(f.Saved)))
	if len(f.Samples) > 0 {
		line(b, "values", strings.Join(f.Samples, " "))
	}
}

func line(b *strings.Builder, label, text string) { fmt.Fprintf(b, "   %-8s %s\n", label, text) }

func orUnnamed(route string) string {
	if route == "" {
		return "unnamed scope"
	}
	return route
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

func findingsWord(n int) string {
	if n == 0 {
		return "nothing found"
	}
	return plural(n, "finding")
}

// short rounds a duration to what is worth reading.
func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}

func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
