/* How instances agree on which tables are cached at all, for spin: roster.go and
 * rosterredis.go. A step that prints a name is what the Go function of that name
 * does.
 *
 * There is one table with one row, whose version each COMMIT raises. An instance
 * that is enlisted may leave out telling Redis of a write, if it does not know
 * that the table is cached; whoever caches it must have been waited for. A write
 * that is told empties all caches at its COMMIT: what that takes is the affair of
 * cache.pml. The promise is the assertion in serve: nobody is served a version
 * older than one whose COMMIT has returned.
 *
 * Time is there where it matters only: a lease may run out at any moment, and a
 * roster is old enough when every lease that was asked for before it has.
 *
 * The known limits are left out: a COMMIT that goes on for longer than a mark
 * would stand, when its instance has died or has lost Redis; and a roster that is
 * lost while an instance that left out telling is about to die.
 *
 * Each macro in `check` takes one safeguard away, and then the assertion fails.
 */
#ifndef WRITES
#define WRITES 2	/* by all instances together */
#endif
#ifndef LOSSES
#define LOSSES 1	/* of the roster, or of the table in it */
#endif
#ifndef OTHERS
#define OTHERS 1	/* other tables that are added meanwhile */
#endif
/* The database: the newest version, and the newest one whose COMMIT has returned. */
byte version = 1, returned = 1;
byte writes, losses, others;

/* Redis. */
byte born = 1, token = 1;
bool has, settled = true;
bool enlisted[2];
byte acknowledged[2];

typedef instance {
	/* roster */
	bool known, wants, stale, admitted;
	bool mayOmit, mayUse;	/* its leases have not run out */
	byte from;		/* the roster at which they were asked for */
	byte token, born;
	bool broken;		/* what is left out now has become uncertain */
	bool out;		/* a write that leaves out telling is under way */
	/* its question, and the answer */
	bool had;		/* it was enlisted when it asked */
	bool late;		/* the lease of the question has run out */
	byte asked;		/* the roster at which it asked */
	byte ack;
	bool wanted;
	byte aborn, atoken;
	bool ais, apending, added, all;
	/* the cache */
	byte entry, flight;
}
instance at[2];

/* all caches, and what is on its way into them */
inline emptied() {
	d_step { at[0].entry = 0; at[1].entry = 0; at[0].flight = 0; at[1].flight = 0 }
}

/* take back what was admitted */
inline expel(i) { at[i].admitted = false; at[i].stale = at[i].wants }

#ifdef NO_WAIT
#define waitsFor(i) (!settled)
#else
#define waitsFor(i) (!settled || (enlisted[1 - i] && acknowledged[1 - i] != token))
#endif

/* rosterredis.go, the script */
inline script(i) {
	at[i].aborn = born;
	at[i].added = (at[i].wanted && !has);
	if
	:: at[i].added -> has = true; token++
	:: !at[i].added && others < OTHERS -> others++; token++
	:: !at[i].added
	fi;
	at[i].apending = waitsFor(i);
	at[i].all = (has && at[i].ack != token);
	if
#ifdef ENLIST_ANYHOW
	:: settled ->
#else
	:: settled && (enlisted[i] || at[i].ack == token) ->
#endif
		acknowledged[i] = (at[i].ack == token -> token : acknowledged[i]);
		enlisted[i] = true; at[i].ais = true
	:: else -> at[i].ais = false
	fi;
	at[i].atoken = token;
	printf("ask i%d\n", i)
}

/* Nothing of a question matters to the next one. */
inline answered(i) {
	at[i].had = false; at[i].late = false; at[i].asked = 0; at[i].ack = 0;
	at[i].aborn = 0; at[i].atoken = 0; at[i].ais = false; at[i].added = false; at[i].all = false
}

inline take(i) {
	if
	:: at[i].born != at[i].aborn && at[i].born != 0 -> at[i].broken = true; expel(i)
	:: else
	fi;
	at[i].born = at[i].aborn;
	if
	:: at[i].added && at[i].admitted -> expel(i)
	:: else
	fi;
	at[i].stale = at[i].stale || at[i].added;
	at[i].known = at[i].known || at[i].all;
	at[i].token = at[i].atoken;
	at[i].broken = at[i].broken || (at[i].ais && !at[i].had);
#ifdef LEASE_FROM_ANSWER
	at[i].mayOmit = at[i].ais; at[i].mayUse = true; at[i].from = at[i].aborn;
#else
	at[i].mayOmit = (at[i].ais && !at[i].late); at[i].mayUse = !at[i].late; at[i].from = at[i].asked;
#endif
	at[i].broken = at[i].broken && at[i].out;
	at[i].from = ((at[i].mayOmit || at[i].mayUse) -> at[i].from : 0);
	printf("take i%d\n", i);
	answered(i)
}

/* the instance's own writes of what it knows by now to be cached */
#define underWay(i) (at[i].out && at[i].known)

/* roster.go: question and admit, again and again */
proctype keeper(byte i) {
end:	do
	:: true ->
		atomic {
#ifdef ACKNOWLEDGE_AT_ONCE
			at[i].ack = at[i].token;
#else
			at[i].ack = (underWay(i) -> 0 : at[i].token);
#endif
			at[i].had = at[i].mayOmit; at[i].late = false; at[i].asked = born; at[i].wanted = at[i].wants;
			printf("question i%d\n", i)
		};
		atomic {
			if
			:: script(i)
			:: goto over	/* it has failed */
			fi
		};
		atomic {
			take(i);
			if
#ifdef OWN_WRITES_NOT_WAITED_FOR
			:: at[i].apending || !at[i].wanted || at[i].admitted -> goto over
#else
			:: at[i].apending || underWay(i) || !at[i].wanted || at[i].admitted -> goto over
#endif
			:: else
			fi
		};
#ifndef NO_NEW_STAMPS
		if
		:: atomic { at[i].stale -> emptied(); printf("bump i%d\n", i) }
		:: atomic { at[i].stale -> goto over }
		:: atomic { !at[i].stale }
		fi;
#endif
		atomic { at[i].stale = false; at[i].admitted = true; printf("admit i%d\n", i) };
over:		atomic { answered(i); at[i].wanted = false; at[i].apending = false }
	od
}

#ifdef NO_END
#define sound true
#elif defined(ENLIST_ANYHOW)	/* either of the two would do */
#define sound at[i].mayOmit
#else
#define sound (at[i].mayOmit && !at[i].broken)
#endif

proctype writer(byte i) {
	byte mine;
	bool out;
end:	do
	:: atomic { writes < WRITES ->
		writes++;
		out = (at[i].mayOmit && !at[i].known);
		at[i].out = out;
		at[i].broken = false;
		printf("omit i%d %d\n", i, out)
	};
	if
	:: atomic {
		version++; mine = version;
		if
		:: !out -> emptied()
		:: else
		fi;
		printf("COMMIT i%d\n", i)
	};
	atomic {
		if
		:: out && !sound -> emptied()
		:: else
		fi;
		at[i].out = false; out = false;
		returned = (mine > returned -> mine : returned);
		mine = 0;
		printf("end i%d\n", i)
	}
	:: atomic { at[i].out = false; out = false; printf("rolledBack i%d\n", i) }
	fi
	od
}

proctype reader(byte i) {
end:	do
	:: atomic { !at[i].wants -> at[i].wants = true; at[i].known = true; printf("enroll i%d\n", i) }
	:: atomic { at[i].mayUse && at[i].admitted && at[i].entry == 0 && at[i].flight == 0 -> at[i].flight = version; printf("read i%d %d\n", i, version) }
	:: atomic { at[i].flight != 0 -> at[i].entry = at[i].flight; at[i].flight = 0; printf("fill i%d\n", i) }
	:: atomic { at[i].mayUse && at[i].admitted && at[i].entry != 0 ->
		printf("serve i%d %d\n", i, at[i].entry);
		assert(at[i].entry >= returned) }
	od
}

#define old(i) ((at[i].mayOmit || at[i].mayUse) && at[i].from != born)

active proctype world() {
	byte i;
	atomic {
		run keeper(0); run keeper(1);
		run reader(0);
#ifdef TWO_READERS
		run reader(1);
#endif
		run writer(1);
#ifdef TWO_WRITERS
		run writer(0)
#endif
	};
end:	do
	/* leases, counted from the sending of a question */
	:: d_step { at[0].mayOmit || at[0].mayUse -> at[0].mayOmit = false; at[0].mayUse = false; at[0].from = 0; printf("lapse i0\n") }
	:: d_step { at[1].mayOmit || at[1].mayUse -> at[1].mayOmit = false; at[1].mayUse = false; at[1].from = 0; printf("lapse i1\n") }
	/* the roster is lost; its next question makes it anew */
	:: d_step { losses < LOSSES ->
		losses++; born++; token = 10 * born; has = false; enlisted[0] = false; enlisted[1] = false; acknowledged[0] = 0; acknowledged[1] = 0;
#ifndef NO_SETTLE
		settled = false;
#endif
		printf("lose\n") }
	:: d_step { !settled && !old(0) && !old(1) ->
		settled = true;
		at[0].late = at[0].late || (at[0].asked && at[0].asked != born);
		at[1].late = at[1].late || (at[1].asked && at[1].asked != born);
		printf("settle\n") }
	/* nobody has wanted the table for long */
	:: d_step { losses < LOSSES && has && !at[0].mayUse && !at[1].mayUse ->
		losses++; has = false; at[0].late = (at[0].asked != 0); at[1].late = (at[1].asked != 0); printf("unwanted\n") }
	/* an instance was not heard of for longer than its lease */
	:: d_step { enlisted[0] && !at[0].mayOmit && !at[0].out -> enlisted[0] = false; acknowledged[0] = 0; at[0].late = (at[0].asked != 0); printf("drop i0\n") }
	:: d_step { enlisted[1] && !at[1].mayOmit && !at[1].out -> enlisted[1] = false; acknowledged[1] = 0; at[1].late = (at[1].asked != 0); printf("drop i1\n") }
	od
}
