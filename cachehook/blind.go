package cachehook

// What the log has said of a catalogue that cannot be read.
const (
	blindNot uint32 = iota
	blindOld        // the one that is known serves
	blindNow        // there is none
)

// catalogFailed tells that the catalogue cannot be read: once, and once more when the
// one that was known is gone.
func (c *Cache) catalogFailed(err error) {
	says, text := blindNow, "cachehook: nothing is cached until the catalogue can be read"
	if c.catalog.present.Load() != nil {
		says, text = blindOld, "cachehook: the catalogue cannot be read anew: the one that is known serves meanwhile"
	}
	if c.blind.Swap(says) != says {
		c.cfg.Logger.Warn(text, "error", err)
	}
}

func (c *Cache) catalogRead() {
	if c.blind.Swap(blindNot) != blindNot {
		c.cfg.Logger.Info("cachehook: the catalogue can be read again")
	}
}
