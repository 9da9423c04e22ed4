package cachehook

import "strings"

// omission is a write under way that goes by a catalogue, and what it does not
// tell Redis.
type omission struct {
	tags   []string
	breaks int
	basis  basis
	sure   bool // the roster waits for it
	letGo  bool // no longer
}

// omit begins a write, and returns those of its tags that Redis has to be told of. o
// is nil when the tags come from no catalogue; else it has to be ended when the write
// has.
func (r *roster) omit(tags []string, by *catalog) (told []string, o *omission) {
	if by == nil {
		return tags, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	o = &omission{breaks: r.breaks, basis: by.basis()}
	r.leftOut[o] = struct{}{}
	if o.sure = r.now() < r.skipUntil && r.schema.upToDate(o.basis); !o.sure {
		return tags, o
	}
	var out []string
	for _, tag := range tags {
		if _, known := r.known[tableOf(tag)]; known || !strings.HasPrefix(tag, tablePrefix) {
			told = append(told, tag)
		} else {
			out = append(out, tag)
		}
	}
	if out == nil {
		return tags, o
	}
	o.tags = out
	return told, o
}

// end ends a write, and reports whether nobody can have cached since what it left
// out.
func (r *roster) end(o *omission) (sound bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.leftOut, o)
	if r.held {
		r.held = false
		r.kick()
	}
	return o.breaks == r.breaks && r.now() < r.skipUntil && !o.letGo
}

// underWay reports whether a write has not ended that leaves out a known tag, or
// goes by an earlier schema than the named one.
func (r *roster) underWayLocked() bool {
	for o := range r.leftOut {
		if r.schema.outdates(o) {
			return true
		}
		for _, tag := range o.tags {
			if _, known := r.known[tableOf(tag)]; known {
				return true
			}
		}
	}
	return false
}
