package sqltext

import "testing"

// A text is personal when who asks is all that makes its answer unstable.
func TestPersonal(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		`SELECT 1 FROM t WHERE owner = CURRENT_USER`:                                            true,
		`SELECT 1 FROM t WHERE owner = session_user OR owner = "current_user"()`:                false, // no name of the catalogue's functions is quoted
		`SELECT 1 FROM t WHERE owner IN (current_role, user)`:                                   true,
		`SELECT 1 FROM t WHERE tenant = current_setting('app.tenant'::text, true)::bigint`:      true,
		`SELECT 1 FROM t WHERE tenant = pg_catalog.current_setting('app.tenant')`:               true,
		`SELECT 1 FROM t WHERE pg_has_role(owner, 'MEMBER')`:                                    true,
		`SELECT 1 FROM t WHERE owner = CURRENT_USER AND ends > now()`:                           false,
		`SELECT 1 FROM t WHERE owner = CURRENT_USER AND ends > CURRENT_DATE`:                    false,
		`SELECT 1 FROM t WHERE owner = CURRENT_USER AND ends > 'today'`:                         false,
		`SELECT 1 FROM t WHERE owner = CURRENT_USER AND random() < 0.5`:                         false,
		`SELECT 1 FROM t TABLESAMPLE BERNOULLI (50) WHERE owner = CURRENT_USER`:                 false,
		`SELECT 1 FROM t WHERE owner = current_user AND inet_client_addr() = '127.0.0.1'::inet`: false,
		`SELECT 1 FROM t, current_timestamp WHERE owner = current_user`:                         false,
		`SELECT 1 FROM t WHERE tenant = 7`:                                                      false, // nothing is unstable
	} {
		st := Parse(text)
		if st.Operation != Select {
			t.Errorf("%s: not read", text)
		}
		if st.Personal != want {
			t.Errorf("%s: %v", text, st.Personal)
		}
		if st.Personal && (!st.Unstable || st.Cacheable()) {
			t.Errorf("%s: personal, and yet stable", text)
		}
	}
}
