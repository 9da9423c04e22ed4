package cachehook

// Pause has this instance serve and keep nothing, neither queries nor values by hand,
// until [Cache.Resume]: for when an answer is doubted while the program runs. Its writes
// go on invalidating, and other instances are not concerned. What is in memory stays,
// and must prove itself as ever when it is asked for again. It does not block and is
// safe for concurrent use.
func (c *Cache) Pause() {
	if c != nil && !c.paused.Swap(true) {
		c.cfg.Logger.Warn("cachehook: paused by hand: this instance serves and keeps nothing, and goes on invalidating")
	}
}

// Resume ends what [Cache.Pause] began.
func (c *Cache) Resume() {
	if c != nil && c.paused.Swap(false) {
		c.cfg.Logger.Info("cachehook: resumed by hand")
	}
}
