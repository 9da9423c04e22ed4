package cachehook

// safeguards are those that tests switch off one at a time, to show that they
// would notice it.
type safeguards uint8

const (
	stampSafeguard   safeguards = 1 << iota // stamps are read before the database is
	markSafeguard                           // tags are marked before COMMIT
	lsnSafeguard                            // fills come from replicas that have replayed the stamps' writes
	channelSafeguard                        // memory is trusted while the channel proves itself
)
