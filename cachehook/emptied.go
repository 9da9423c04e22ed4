package cachehook

import "sync"

// maxEmptied bounds how many reasons the log has told.
const maxEmptied = 100

// emptied are the reasons for which writes have emptied everything, that the log has
// told. The zero value is ready.
type emptied struct {
	mu   sync.Mutex // guards told
	told map[string]bool
}

func (e *emptied) first(why string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.told[why] || len(e.told) >= maxEmptied {
		return false
	}
	if e.told == nil {
		e.told = make(map[string]bool)
	}
	e.told[why] = true
	return true
}

// noteEmptied counts a write that has emptied everything because it is not known what
// it changes, and tells each reason once where something is cached.
func (c *Cache) noteEmptied(why string) {
	if why == "" {
		return
	}
	c.counts.emptied.Add(1)
	if (len(c.cfg.Tables) > 0 || c.memory.entries.Load() > 0) && c.emptied.first(why) {
		c.cfg.Logger.Warn("cachehook: a write has emptied all that is cached, as each like it will", "because", why)
	}
}
