/* How an instance that writes by an older catalogue is kept from leaving something
 * stale, for spin: schema.go, schemaredis.go, catalogload.go, and what roster.go does
 * for them. A step that prints a name is what the Go function of that name does.
 *
 * DDL of a third process, which may die at any point, turns a foreign key's ON DELETE
 * CASCADE on and off: it is on in schemas of even number. Instance 1 deletes from the
 * parent, and thereby from the child if it is on when the statement runs: before
 * COMMIT is prepared in a transaction, together with COMMIT outside one, however long
 * the statement has waited for a lock. It tells of the child, or of everything, only
 * when its catalogue or a look at the schema's tag says so; telling empties all caches
 * at COMMIT, which is the affair of cache.pml. Instance 0 caches the child. Whether
 * a write by an older catalogue tells Redis of other tags makes no difference but at
 * its end, where those that tell look at the schema's tag.
 *
 * The promise is the assertion in serve: nobody is served a version of the child that
 * is older than one whose COMMIT has returned.
 *
 * Everything that is served is looked up in Redis here; what memory may be trusted
 * for is the affair of cache.pml too, and the loss of a roster that of roster.pml.
 *
 * The known limits are left out: the death of a writer, after a COMMIT that it has
 * not told, that is not enlisted or has been let go, and whose statement ran after
 * it was decided what to tell; and a COMMIT that goes on for longer than a mark
 * would stand when its instance has died.
 *
 * Each macro in `check` takes one safeguard away, and then the assertion fails.
 */
#ifndef WRITES
#define WRITES 1
#endif
#ifndef DDLS
#define DDLS 1
#endif
#ifndef LAPSES
#define LAPSES 1	/* of instance 1's lease */
#endif
/* The database. */
byte schema = 1, version = 1, returned = 1;
byte writes, lapses;

/* Redis: the schema's tag, an entry of the child, the roster. */
#define none 0
#define standing 1
#define runOut 2
byte stamp = 1, mark;
byte entry, entryStamp;
byte named, token = 1;	/* the schema that the roster names */
bool enlisted[2];
byte acknowledged[2];

typedef instance {
	/* its catalogue: what it was read from, under which stamp, and which schema the
	 * roster named, as far as the instance knew, when the reading began */
	bool has;
	byte content, catalogued, since;
	/* roster */
	bool mayOmit;	/* its lease has not run out */
	byte token, named, admitted;
	bool broken;		/* what is left out now has become uncertain */
	/* its write under way, and what that goes by */
	bool out, gone;
	byte by, bySince;
	/* its question, and the answer */
	bool had, late, asking, ais, apending;
	byte ack, proposes, replaces, atoken, anamed
}
instance at[2];

inline emptied() { d_step { entry = 0; entryStamp = 0 } }

/* redis.go, the script that reads: whoever meets a mark that has run out mints. */
inline purge() {
	if
	:: mark == runOut -> mark = none; stamp++
	:: else
	fi
}

/* schema.go: the catalogue is that of the named schema, or was read since it is named */
#define goesBy(i, s, after) (at[i].named != 0 && ((s) == at[i].named || (after) == at[i].named))
#define upToDate(i) goesBy(i, at[i].catalogued, at[i].since)

inline forget(i) { at[i].has = false; at[i].content = 0; at[i].catalogued = 0; at[i].since = 0 }

/* hook.go and catalogload.go. What instance 0 finds in its catalogue does not matter. */
proctype librarian(byte i) {
	byte s, after, c;
end:	do
	:: atomic { !at[i].has && i == 0 ->
		purge();
		at[i].has = true; at[i].catalogued = (mark == standing -> 0 : stamp); at[i].since = at[i].named;
		printf("keep i%d stamp %d since %d\n", i, at[i].catalogued, at[i].since)
	}
	:: atomic { !at[i].has && i == 1 ->
		after = at[i].named;
#ifdef STAMP_AFTER_CATALOGUE
		c = schema;
#else
		purge();
		s = (mark == standing -> 0 : stamp);
#endif
		printf("readCatalog i%d\n", i)
	};
	atomic {
#ifdef STAMP_AFTER_CATALOGUE
		purge();
		s = (mark == standing -> 0 : stamp);
#else
		c = schema;
#endif
		at[i].has = true; at[i].content = c; at[i].catalogued = s; at[i].since = after;
		printf("keep i%d content %d stamp %d since %d\n", i, c, s, after);
		s = 0; after = 0; c = 0
	}
	od
}

#ifdef NO_WAIT
#define waitsFor(i) false
#else
#define waitsFor(i) (i == 0 && enlisted[1] && acknowledged[1] != token)
#endif

/* rosterredis.go, the script */
inline script(i) {
	if
#ifdef PROPOSE_ANYHOW
	:: at[i].proposes != 0 && at[i].proposes != named -> named = at[i].proposes; token++
#else
	:: at[i].proposes != 0 && at[i].proposes != named && at[i].replaces == named -> named = at[i].proposes; token++
#endif
	:: else
	fi;
	at[i].apending = waitsFor(i);
	if
	:: i == 1 && (enlisted[i] || at[i].ack == token) ->
		acknowledged[i] = (at[i].ack == token -> token : acknowledged[i]);
		enlisted[i] = true; at[i].ais = true
	:: else -> at[i].ais = false
	fi;
	at[i].atoken = token; at[i].anamed = named;
	printf("ask i%d named %d\n", i, named)
}

#ifdef ACKNOWLEDGE_AT_ONCE
#define underWay(i) false
#else
#define underWay(i) (at[i].out && !at[i].gone && at[i].named != 0 && !goesBy(i, at[i].by, at[i].bySince))
#endif

inline take(i) {
	at[i].named = at[i].anamed; at[i].token = at[i].atoken;
	at[i].broken = (at[i].broken || (at[i].ais && !at[i].had)) && at[i].out;
	at[i].mayOmit = (at[i].ais && !at[i].late);
	at[i].admitted = ((!at[i].apending && !underWay(i)) -> at[i].named : at[i].admitted);
	if	/* for speed: the writer looks whether it is up to date */
	:: at[i].has && at[i].named != 0 && !upToDate(i) -> forget(i)
	:: true
	fi;
	printf("take i%d\n", i)
}

inline question(i) {
	at[i].ack = (underWay(i) -> 0 : at[i].token);
	at[i].had = at[i].mayOmit; at[i].late = false; at[i].asking = true;
	if
#ifdef PROPOSE_ANYHOW
	:: at[i].has && at[i].catalogued != 0 && at[i].catalogued != at[i].named ->
#else
	:: at[i].has && at[i].catalogued != 0 && at[i].catalogued != at[i].named && (at[i].named == 0 || at[i].since == at[i].named) ->
#endif
		at[i].proposes = at[i].catalogued; at[i].replaces = at[i].named
	:: else
	fi;
	printf("question i%d\n", i)
}

/* Nothing of a question matters to the next one. */
inline answered(i) {
	at[i].had = false; at[i].late = false; at[i].asking = false; at[i].ack = 0; at[i].proposes = 0; at[i].replaces = 0;
	at[i].ais = false; at[i].apending = false; at[i].atoken = 0; at[i].anamed = 0
}

/* roster.go, again and again. Instance 0 writes nothing, and nobody waits for it. */
proctype keeper(byte i) {
end:	do
	:: i == 0 -> atomic { question(i); script(i); take(i); answered(i) }
	:: i == 1 -> atomic { question(i) };
		atomic { script(i) };
		atomic { take(i); answered(i) }
	od
}

#define cascades(s) ((s) % 2 == 0)

/* schema.go, changed: the tag is marked, or has another stamp than the catalogue */
#ifdef MARKS_NOT_LOOKED_AT
#define changed(i) (at[i].by == 0 || at[i].by != stamp)
#elif defined(UNSTAMPED_IS_TRUSTED)
#define changed(i) (at[i].by != 0 && (mark == standing || at[i].by != stamp))
#else
#define changed(i) (mark == standing || at[i].by == 0 || at[i].by != stamp)
#endif

/* write.go */
proctype writer(byte i) {
	byte mine, saw;
	bool transaction, ran, covered, sure, told;
end:	do
	:: atomic { writes < WRITES ->
		writes++;
		if
#ifndef AUTOCOMMIT
		:: transaction = true; ran = cascades(schema); saw = at[i].catalogued	/* before COMMIT is prepared */
#endif
#ifndef TRANSACTION
		:: transaction = false
#endif
		fi;
		printf("note i%d transaction %d\n", i, transaction)
	};
	atomic {
		at[i].by = at[i].catalogued; at[i].bySince = at[i].since;
		at[i].out = at[i].has; at[i].broken = false;
#ifdef STATEMENTS_BY_ANY_SCHEMA
		covered = (!at[i].has || cascades(at[i].content));
#else
		covered = (!at[i].has || cascades(at[i].content) || transaction && saw != at[i].catalogued);
#endif
		saw = 0;
#ifdef OMIT_BY_OLD_CATALOGUE
		sure = (at[i].mayOmit && at[i].has);
#else
		sure = (at[i].mayOmit && at[i].has && upToDate(i));
#endif
		if
		:: sure -> told = false
		:: told = true
		fi;
#ifndef NO_LOOK_AT_MARK
		if
		:: !sure && at[i].has -> purge(); covered = (covered || changed(i))
		:: else
		fi;
#endif
		printf("omit i%d sure %d told %d covered %d by %d\n", i, sure, told, covered, at[i].by)
	};
	if
	:: atomic {
		ran = (transaction -> ran : cascades(schema));
		if
		:: ran -> version++; mine = version
		:: else -> mine = 0
		fi;
		if
		:: covered && ran -> emptied()
		:: else
		fi;
		printf("COMMIT i%d ran %d\n", i, ran)
	};
	if
	:: atomic {
#ifdef NO_END
		told = (told || at[i].gone);
#elif defined(LET_GO_AND_FORGOTTEN)
		told = (told || !at[i].mayOmit || at[i].broken);
#else
		told = (told || !at[i].mayOmit || at[i].broken || at[i].gone);
#endif
		if
		:: told -> purge()
		:: else
		fi;
		if
#ifndef NO_LOOK_AT_BUMP
		:: told && changed(i) -> forget(i); emptied()
#endif
		:: else
		fi;
		returned = (mine > returned -> mine : returned);
		printf("end i%d\n", i)
	}
	:: atomic { (sure -> enlisted[i] : transaction) && !at[i].gone -> returned = (mine > returned -> mine : returned); printf("died i%d\n", i); goto died }
	fi
	:: atomic { printf("rolledBack i%d\n", i) }
	fi;
	atomic { at[i].out = false; at[i].gone = false; at[i].by = 0; at[i].bySince = 0; mine = 0; transaction = false; ran = false; covered = false; sure = false; told = false }
	od;
died:	/* its write and its lease are nobody's any more; it is waited for until drop */
	atomic { at[i].mayOmit = false; at[i].late = true; at[i].out = true; at[i].by = 255; at[i].bySince = 255 }
}

/* lookup.go and serve.go; a catalogue that does not fit is read again */
proctype reader(byte i) {
end:	do
	:: atomic { entry == 0 && at[i].has && at[i].admitted == at[i].catalogued && at[i].catalogued != 0 ->
		purge();
		if
		:: mark == none && at[i].catalogued == stamp -> entry = version; entryStamp = stamp; printf("fill i%d %d under %d\n", i, version, stamp)
		:: mark == none && at[i].catalogued != stamp -> forget(i)
		:: else
		fi
	}
	:: atomic { entry != 0 ->
		purge();
		if
		:: mark == none && entryStamp == stamp -> printf("serve i%d %d\n", i, entry); assert(entry >= returned)
		:: mark == none && entryStamp != stamp -> entry = 0; entryStamp = 0
		:: else
		fi
	}
	od
}

proctype ddl() {
	byte n;
end:	do
	:: atomic { n < DDLS && mark == none -> n++; mark = standing; printf("mark d0\n") };
	if
	:: atomic { schema++; printf("COMMIT d0 schema %d\n", schema) };
		if
		:: atomic { stamp++; mark = none; printf("bump d0 %d\n", stamp) }
		:: atomic { mark = runOut; printf("runOut d0\n") }
		fi
	:: atomic { mark = runOut; printf("runOut d0\n") }
	fi
	od
}

active proctype world() {
	atomic {
		run librarian(0); run librarian(1);
		run keeper(0); run keeper(1);
		run reader(0);
		run writer(1);
		run ddl()
	};
end:	do
	/* leases, counted from the sending of a question */
	:: d_step { lapses < LAPSES && at[1].mayOmit -> lapses++; at[1].mayOmit = false; at[1].late = at[1].asking; printf("lapse i1\n") }
	/* an instance was not heard of for as long as its marks would stand */
	:: d_step { enlisted[1] && !at[1].mayOmit -> enlisted[1] = false; acknowledged[1] = 0; at[1].late = at[1].asking; printf("drop i1\n") }
	/* a write by an older catalogue that goes on for long is waited for no more */
	:: d_step { underWay(1) && at[1].by != 255 -> at[1].gone = true; printf("letGo i1\n") }
	od
}
