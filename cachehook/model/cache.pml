/* The protocol of this package, for spin: what marks, stamps, the channel and
 * the mirror do together while processes, messages and keys come and go at any
 * moment. A step that prints a name is what the Go function of that name does;
 * ../model_test.go takes the same steps with the real functions.
 *
 * One row has a version, which each COMMIT raises. A read depends on TAGS tags;
 * writer w changes tag w % TAGS. The promises are the assertion in serve: a read
 * that starts after a COMMIT shows it, on the writer's instance at once, on the
 * other one when a Lease has passed; and, with MONOTONIC, no instance goes back
 * behind what it has shown.
 *
 * Time is there where it matters only: `late` is the newest version whose COMMIT
 * lies a Lease back, and may grow at any moment up to the newest. Pings are not
 * there one by one: as many are sent and answered as the order of the channel
 * allows, so that an instance may trust its mirror when the oldest message that
 * it has not received was published after the COMMIT of `late`: a ping could
 * have been sent between the two, and its answer be there already. Nor are
 * samples of the primary's position: the earliest one that is allowed is the
 * lowest, and the lowest is the worst.
 *
 * Each macro in `check` takes one safeguard away, and then the assertion fails.
 *
 * With ROWS the read is one by primary key: tag 0 is the row's, tag 1 that of the
 * table as a whole. Writer 0 writes the row by its key, writer 1 some rows that
 * nobody can name. The row's tag is made by whoever asks for it first, and may be
 * evicted; a look-up asks for one tag after the other, and others come between.
 *
 * A client that gets no answer sends a command again: up to REPEATS of those that
 * make stamps arrive a second time, at any moment after the first.
 *
 * A Cluster's shard.go finds by numbers that a message was lost, and forgets all: that
 * is the subscription cut off and confirmed again.
 *
 * The known limits are left out: a COMMIT that goes on in the server for longer
 * than the mark of its dead writer; a Redis that loses a mark (eviction,
 * failover) whose writer then dies; a Redis restored from older data, which is
 * witness.go's affair; CommitAndQuarantine while the writer is cut off; and an
 * instance that goes back within a Lease because memory dropped the newer entry
 * and Redis still has an older one.
 */
#ifdef ROWS
#define TAGS 2
#endif
#ifndef TAGS
#define TAGS 1
#endif
#ifndef READERS
#define READERS 2	/* the first on instance 0, the others on 1 */
#endif
#ifndef WRITERS
#define WRITERS 2	/* the first on instance 0, the second on HOME */
#endif
#ifndef HOME
#define HOME 1
#endif
#ifndef EVICTIONS
#define EVICTIONS 1	/* of tags */
#endif
#ifndef REPEATS
#define REPEATS 0	/* of commands */
#endif
#ifndef CUTS
#define CUTS 1		/* of instance 1's subscription */
#endif

/* Stamps are small numbers; 0 is none, or unknown. Those of two tags are the
 * nibbles of one byte. */
#if TAGS == 1
#define of(s, t) (s)
#define with(s, t, new) (new)
#define without(s, tags) ((tags) -> 0 : (s))
#define allKnown(s) ((s) != 0)
#define differs(a, b) ((a) != 0 && (a) != (b))
#define allTags 1
#define first 1
#else
#define of(s, t) (((s) >> (4 * (t))) & 15)
#define with(s, t, new) (((s) & (240 >> (4 * (t)))) | ((new) << (4 * (t))))
#define without(s, tags) ((s) & (((tags) & 1) -> 240 : 255) & (((tags) & 2) -> 15 : 255))
#define allKnown(s) (of(s, 0) != 0 && of(s, 1) != 0)
#define differs(a, b) ((of(a, 0) != 0 && of(a, 0) != of(b, 0)) || (of(a, 1) != 0 && of(a, 1) != of(b, 1)))
#define allTags 3
#define first 17
#endif
#define tagOf(w) ((w) % TAGS)

/* The database. */
byte primary, replica, late;

/* Redis. */
#define none 0
#define standing 1
#define runOut 2
byte stamps = first, fresh = 2;
byte mark[2];
byte l2 = first, l2ver;
byte evictions, cuts, repeats;
byte born, bumped;	/* a stamp was made by reader 1, by writer 0 */

/* The instances. */
#define listening 0
#define cutOff 1
#define confirming 2	/* subscribed again, and the confirmation is on its way */
typedef instance {
	byte mirror = first;	/* the stamps it knows */
	byte l1 = first, l1ver;	/* the entry in memory: stamps and version */
	byte busy;		/* own writes, a bit for each writer */
	byte own, shown;	/* the newest version written and shown here */
	byte channel;
	byte unheard;		/* messages on their way, a bit for each tag */
	byte since;		/* 1 + the commits when the oldest was published; 0: trust nothing */
#ifdef MESSAGE_SETS
	byte says;
#endif
	byte placed = first, lsn[TAGS];	/* stamps and the positions known for them */
}
instance at[2];
byte changed;
byte overtaken[3];	/* by reader: tags touched since it asked */
byte flight[3], follows[3], told[3];

#define home(r) ((r) > 0)
#ifdef LEASE_FROM_PONG
#define healthy(i) (at[i].channel == listening || at[i].since > late)
#else
#define healthy(i) ((at[i].channel == listening && at[i].unheard == 0) || at[i].since > late)
#endif
#if TAGS == 1
#define markedTags 1
#else
#define markedTags ((mark[0] == standing -> 1 : 0) | (mark[1] == standing -> 2 : 0))
#endif
#define marked (mark[0] == standing || mark[1] == standing)

/* mirror.go: the tags are unknown now, and answers under way are void. */
inline forget(i, tags) {
	at[i].mirror = without(at[i].mirror, tags);
	/* an entry that nobody can ever use again counts as none */
	at[i].l1ver = (at[i].l1 == stamps -> at[i].l1ver : 0);
	at[i].l1 = (at[i].l1 == stamps -> at[i].l1 : 0);
	touched(i, tags)
}
inline touched(i, tags) {
	overtaken[0] = overtaken[0] | ((i == 0) -> (tags) : 0);
	overtaken[1] = overtaken[1] | ((i == 1) -> (tags) : 0);
#if READERS > 2
	overtaken[2] = overtaken[2] | ((i == 1) -> (tags) : 0)
#endif
}

/* redis.go: publish follows its script. Who is cut off gets nothing. */
inline publishTo(i, t) {
	if
	:: at[i].channel != cutOff ->
		at[i].since = ((at[i].channel == listening && at[i].unheard == 0) -> 1 + primary : at[i].since);
		at[i].unheard = at[i].unheard | (1 << t);
#ifdef MESSAGE_SETS
		at[i].says = minted
#endif
	:: else
	fi
}
inline publish() {
	d_step { publishTo(0, t); publishTo(1, t) };
	printf("publish w%d\n", w)
}

inline mint(t) {
	assert(fresh < 16);
	stamps = with(stamps, t, fresh);
	fresh++
}

/* The second arrival of a command makes another stamp than the first. */
#ifdef BIRTH_REPEATED
#define birthOf(s) (s)
#define bearAgain stamps = with(stamps, 0, born)
#else
#define birthOf(s) 1
#define bearAgain mint(0)
#endif
#ifdef BUMP_REPEATED
#define bumpOf(s) (s)
#define bumpAgain stamps = with(stamps, 0, bumped)
#else
#define bumpOf(s) 1
#define bumpAgain mint(0)
#endif

/* redis.go: a tag without a stamp needs none, as nothing carries it. */
inline bump() {
	if
	:: of(stamps, t) != 0 -> mint(t); bumped = ((w == 0 && REPEATS > 0) -> bumpOf(of(stamps, t)) : bumped)
	:: else
	fi
}

/* write.go. A writer that stands still for good is one that died. What follows
 * from its death is that its mark runs out, as nobody renews it. */
#define died(w) mark[w] = runOut; printf("runOut w%d\n", w); goto over

proctype writer(byte w; byte i) {
	byte t = tagOf(w);
#ifdef MESSAGE_SETS
	byte minted;
#endif
#ifndef NO_HOLD
	d_step { at[i].busy = at[i].busy | (1 << w); forget(i, 1 << t); printf("hold w%d\n", w) };
#endif
#ifndef NO_MARK
	d_step { mark[w] = standing; printf("mark w%d\n", w) };
#ifndef MARK_NOT_PUBLISHED
	if
	:: atomic { publish() }
	:: atomic { died(w) }
	fi;
#endif
#endif
	if
	:: atomic { primary++; at[i].own = primary; printf("COMMIT w%d\n", w) }
	:: atomic { mark[w] = none; printf("unmark w%d\n", w); goto ended }
	:: atomic { mark[w] == standing -> died(w) }
	fi;
	if
	:: atomic {
		bump(); mark[w] = none;
#ifdef MESSAGE_SETS
		minted = of(stamps, t);
#endif
		printf("bump w%d %d\n", w, of(stamps, t)) }
	:: atomic { mark[w] == standing -> died(w) }
	fi;
	atomic { publish() };
ended:
#ifndef NO_HOLD
	atomic { at[i].busy = at[i].busy & ~(1 << w); forget(i, 1 << t); printf("release w%d\n", w) };
#endif
over:	skip
}

/* lookup.go, serve.go, expedition.go: one read after the other. */

inline serve(v) {
	printf("serve r%d %d\n", r, v);
	assert(v >= need);
#ifdef MONOTONIC
	at[i].shown = (v > at[i].shown -> v : at[i].shown);
#endif
	goto next
}

/* redis.go, readScript: whoever meets a mark that has run out mints. */
inline purge(w) {
	if
	:: mark[w] == runOut ->
		mark[w] = none;
#ifndef PURGE_KEEPS_STAMP
		mint(tagOf(w))
#endif
	:: else
	fi
}
inline readScript() {
	purge(0); purge(1);
	if
	:: of(stamps, 0) == 0 -> mint(0)
	:: else
	fi;
#if TAGS > 1
	if
	:: of(stamps, 1) == 0 -> mint(1)
	:: else
	fi;
#endif
	under = stamps
}

#ifdef ROWS
/* look.go: the row's tag is asked for first, and made where there is none. */
#define isUnclear 0
#define isMarked 16
inline readRow() {
	if
	:: of(stamps, 0) == 0 && mark[0] == none -> mint(0); born = (REPEATS > 0 -> birthOf(of(stamps, 0)) : 0)
	:: else
	fi;
	row = (mark[0] == standing -> isMarked : (mark[0] == none -> of(stamps, 0) : isUnclear))
}
inline readWhole() {
	purge(1);
	if
	:: row == isUnclear ->
		purge(0);
		if
		:: of(stamps, 0) == 0 -> mint(0)
		:: else
		fi;
		row = of(stamps, 0)
	:: else
	fi;
	if
	:: of(stamps, 1) == 0 -> mint(1)
	:: else
	fi;
	under = with(stamps, 0, row & 15)
#ifdef ROW_ALONE
	;
	under = with(under, 1, 1)
#endif
}
#ifdef ROW_ALONE
#define markedWhole 0
#else
#define markedWhole (mark[1] == standing)
#endif
#define meets (row == isMarked || markedWhole)
#define metTags ((row == isMarked -> 1 : 0) | (markedWhole -> 2 : 0))
#else
#define readWhole readScript
#define meets marked
#define metTags markedTags
#endif

/* The stamps that an answer brings, unless something touched their tags since. If
 * that was another answer, and with another stamp, nobody can tell which is newer. */
#ifdef OVERTAKEN_LEAVES_IT
#define kept(t) of(at[i].mirror, t)
#else
#define kept(t) (of(at[i].mirror, t) == of(under, t) -> of(under, t) : 0)
#endif
inline learn() {
#ifdef LEARN_OVERTAKEN
	overtaken[r] = 0;
#endif
	d_step {
	changed = at[i].mirror;
#if TAGS == 1
	at[i].mirror = (overtaken[r] -> kept(0) : under);
#else
	at[i].mirror = with(at[i].mirror, 0, (overtaken[r] & 1 -> kept(0) : of(under, 0)));
	at[i].mirror = with(at[i].mirror, 1, (overtaken[r] & 2 -> kept(1) : of(under, 1)));
#endif
	changed = (of(changed, 0) != of(at[i].mirror, 0)) | ((TAGS > 1 && of(changed, TAGS - 1) != of(at[i].mirror, TAGS - 1)) << 1)
	};
	touched(i, changed);
	changed = 0
}

inline put1(s, v) { at[i].l1 = s; at[i].l1ver = v }

#ifdef NO_FLOOR
#define replayed (replica >= at[i].shown)
#elif defined(FLOOR_OF_ANY_STAMP)
#define replayed (replica >= at[i].shown && replica >= at[i].lsn[0])
#elif TAGS == 1
#define replayed (replica >= at[i].shown && at[i].placed == under && replica >= at[i].lsn[0])
#elif defined(FLOOR_OF_LAST_TAG)
#define replayed (replica >= at[i].shown && at[i].placed == under && replica >= at[i].lsn[1])
#else
#define replayed (replica >= at[i].shown && at[i].placed == under && replica >= at[i].lsn[0] && replica >= at[i].lsn[1])
#endif
#ifdef SAMPLE_BEFORE
#define position replica	/* as of some moment before */
#else
#define position primary
#endif

/* Whose position is not known is asked for now, and known later. */
inline want() {
#if TAGS == 1
	at[i].lsn[0] = (at[i].placed == under -> at[i].lsn[0] : position);
#else
	at[i].lsn[0] = (of(at[i].placed, 0) == of(under, 0) -> at[i].lsn[0] : position);
	at[i].lsn[1] = (of(at[i].placed, 1) == of(under, 1) -> at[i].lsn[1] : position);
#endif
	at[i].placed = under
}

#define inL1 1
#define inL2 2
#define isMiss 3
#define isMarkedNow 4
#ifdef MONOTONIC	/* needs the entries to stay in memory for a Lease */
#define mayExpire 0
#else
#define mayExpire 1
#endif

proctype reader(byte r; byte i) {
	byte need;	/* what the read must show at least */
	byte under;	/* the stamps it reads under */
	byte ver;	/* what it has found */
	byte found;
#ifdef ROWS
	byte row;	/* what it has read of the row's tag */
#endif
find:
	atomic {
		need = (late > at[i].own -> late : at[i].own);
#ifdef MONOTONIC
		need = (at[i].shown > need -> at[i].shown : need);
#endif
		if
		:: at[i].busy -> printf("find r%d busy\n", r); goto direct
		:: at[i].busy == 0 && healthy(i) && allKnown(at[i].mirror) && at[i].l1 == at[i].mirror ->
			printf("find r%d current\n", r);
			serve(at[i].l1ver)
		:: at[i].busy == 0 && healthy(i) && allKnown(at[i].mirror) && (mayExpire || at[i].l1 != at[i].mirror) ->
			under = at[i].mirror;
			printf("find r%d present\n", r);
			goto fly
		:: at[i].busy == 0 ->	/* also when the last proof is older than the Lease */
			under = at[i].l1; ver = at[i].l1ver;
			printf("find r%d\n", r)
		fi
	};
	/* ask. The later a question, the less overtakes its answer. */
#ifdef ROWS
	atomic { overtaken[r] = 0; readRow(); printf("row r%d\n", r) };
#endif
	atomic {
#ifndef ROWS
		overtaken[r] = 0;
#endif
		found = under;	/* the stamps of what was in memory */
		readWhole();
		found = (meets -> isMarkedNow : (found == under -> inL1 : (l2 == under -> inL2 : isMiss)));
		ver = (found == inL2 -> l2ver : (found == inL1 -> ver : 0));
		under = (found == isMarkedNow -> metTags : under);
#ifdef ROWS
		row = 0;
#endif
		printf("lookup r%d\n", r)
	};
	atomic {
		if
		:: found == isMarkedNow ->
#ifndef MARK_LEARNS_NOTHING
			forget(i, under);
#endif
			under = 0;
			printf("learn r%d marked\n", r);
			goto direct
		:: else
		fi;
		learn();
		printf("learn r%d\n", r);
		if
		:: found == inL1 -> serve(ver)
		:: found == inL2 -> put1(under, ver); printf("fromL2 r%d\n", r); serve(ver)
		:: else
		fi
	};
fly:
#if READERS > 2
	atomic {
#ifdef FLIGHT_WITHOUT_STAMPS
#define sameFlight (flight[3 - r] != 0)
#else
#define sameFlight (flight[3 - r] == under)
#endif
		if
		:: r > 0 && sameFlight -> follows[r] = 1; under = 0; ver = 0; found = 0; printf("join r%d\n", r); goto wait
		:: else
		fi;
		flight[r] = under;
		printf("lead r%d\n", r)
	};
#endif
	atomic {
		found = 0;
		if
		:: l2 == under -> ver = l2ver; put1(under, ver); printf("again r%d\n", r); goto landed
		:: ver = primary; printf("read r%d primary %d\n", r, ver)
		:: replayed -> ver = replica; printf("read r%d replica %d\n", r, ver)
		fi;
		want()
	};
	atomic {
#ifdef STAMP_AFTER_SNAPSHOT
		readScript();
		under = (marked -> 0 : under);
#endif
		skip;
		if
		:: under != 0 && !differs(at[i].mirror, under) -> put1(under, ver); printf("fill r%d\n", r)
		:: else
		fi;
landed:
		flight[r] = 0;
#if READERS > 2
		if
		:: r > 0 && follows[3 - r] -> follows[3 - r] = 0; told[3 - r] = ver
		:: else
		fi;
#endif
		printf("serve r%d %d\n", r, ver);
		assert(ver >= need);
#ifdef MONOTONIC
		at[i].shown = (ver > at[i].shown -> ver : at[i].shown);
#endif
		need = 0
	};
	atomic {
		if
		:: under != 0 -> l2 = under; l2ver = ver; printf("put r%d %d\n", r, ver)
		:: true
		fi;
		goto next
	};
#if READERS > 2
wait:
	atomic { follows[r] == 0 -> ver = told[r]; serve(ver) };
#endif
direct:
	atomic {
		ver = primary;
#ifdef REPLICA_WHILE_MARKED
		if
		:: true
		:: replica >= at[i].shown -> ver = replica
		fi;
#endif
		printf("direct r%d %d\n", r, ver);
		serve(ver)
	};
next:	/* nothing of this read matters to the next one */
	atomic { need = 0; under = 0; ver = 0; found = 0; overtaken[r] = 0; told[r] = 0; goto find }
}

/* channel.go */
inline deliver(i, t) {
	at[i].unheard = at[i].unheard & ~(1 << t);
	at[i].since = (at[i].unheard -> at[i].since : 0);
	forget(i, 1 << t);
#ifdef MESSAGE_SETS
	at[i].mirror = at[i].says;
#endif
	printf("heard i%d\n", i)
}
inline cutOffNow(i) {
	cuts++;
	at[i].since = (at[i].unheard -> at[i].since : 1 + primary);
	at[i].channel = cutOff;
	printf("cut i%d\n", i)
}
inline confirmed(i) {
	at[i].channel = listening;
	at[i].since = 0;
#ifdef FLUSH_KEEPS_QUESTIONS
	at[i].mirror = 0;
#elif !defined(NO_FLUSH)
	forget(i, allTags);
#endif
	printf("confirmed i%d\n", i)
}

active proctype world() {
	atomic {
#ifndef NO_READER_0
		run reader(0, 0);
#endif
		run reader(1, 1);
#if READERS > 2
		run reader(2, 1);
#endif
#ifndef NO_WRITER_0
		run writer(0, 0);
#endif
#if WRITERS > 1
		run writer(1, HOME)
#endif
	};
end:	do
	:: d_step { late < primary -> late++; printf("lease %d\n", late) }
#ifndef NO_REPLAY	/* makes smaller what is not about replicas */
	:: d_step { replica < primary -> replica++; printf("replay %d\n", replica) }
#endif
#ifdef NO_RENEW
	:: d_step { mark[0] == standing -> mark[0] = runOut; printf("runOut w0\n") }
#endif
#ifdef ROWS
	:: d_step { evictions < EVICTIONS && mark[0] != standing && of(stamps, 0) != 0 ->
		evictions++; stamps = with(stamps, 0, 0); mark[0] = none;
		printf("evict\n") }
#else
	:: d_step { evictions < EVICTIONS && !marked && stamps != 0 ->
		evictions++; stamps = with(stamps, 0, 0); mark[0] = none;
		mark[1] = (TAGS == 1 -> none : mark[1]);
		printf("evict\n") }
#endif
#if REPEATS > 0
	:: d_step { repeats < REPEATS && born && of(stamps, 0) == 0 && mark[0] == none ->
		repeats++; bearAgain; born = 0; printf("repeat r1\n") }
	:: d_step { repeats < REPEATS && bumped && of(stamps, 0) != 0 ->
		repeats++; bumpAgain; bumped = 0; printf("repeat w0\n") }
#endif
	:: d_step { at[0].channel != confirming && at[0].unheard & 1 -> deliver(0, 0) }
	:: d_step { at[1].channel != confirming && at[1].unheard & 1 -> deliver(1, 0) }
#if TAGS > 1
	:: d_step { at[0].channel != confirming && at[0].unheard & 2 -> deliver(0, 1) }
	:: d_step { at[1].channel != confirming && at[1].unheard & 2 -> deliver(1, 1) }
#endif
	:: d_step { cuts < CUTS && at[1].channel == listening -> cutOffNow(1) }
	:: d_step { at[1].channel == cutOff -> at[1].channel = confirming; at[1].unheard = 0; printf("subscribe i1\n") }
	:: d_step { at[1].channel == confirming -> confirmed(1) }
	od
}
