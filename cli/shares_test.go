package cli

import (
	"testing"
	"time"

	"sluice/admin"
	"sluice/release"
	"sluice/test/verify"
)

// serveShares serves the admin API with the splits that it returns, and the orders that it gets.
func serveShares(t *testing.T) (address string, splits *[]release.State, last *release.Order) {
	t.Helper()
	splits, last = new([]release.State), new(release.Order)
	return serveHandler(t, admin.New(admin.Options{
		Shares: admin.Shares{Splits: func() []release.State { return *splits },
			OrderShare: func(o release.Order) error {
				if *last = o; o.Service != "star" {
					return release.ErrNoSplit
				}
				if o.Verb == release.Resume {
					return release.ErrNotPaused
				}
				return nil
			}},
		Documents: noDocuments{}, Tokens: func() admin.Tokens { return admin.Tokens{} },
	}).ServeHTTP), splits, last
}

func TestSharesCommand(t *testing.T) {
	address, splits, _ := serveShares(t)
	show := func(want string, args ...string) {
		t.Helper()
		status, stdout, stderr := execute(t, append([]string{"shares", "--admin", address}, args...)...)
		verify.That(t, status == exitOK && stdout == want && stderr == "", "status %d\n%s%s want\n%s", status, stdout, stderr, want)
	}
	show("no service has a split with the share of one group\n")
	now := time.Now()
	*splits = []release.State{
		{Service: "moon", Group: "new", Share: 0.001, Configured: 0.001},
		{Service: "star", Group: "canary", Configured: 0.05,
			Override: &release.Share{By: release.ByJudge, Why: "5 % of 100 requests fail", Since: now.Add(-time.Hour - time.Minute)},
			Judge:    &release.JudgeState{}},
		{Service: "sun", Group: "canary", Share: 0.25, Configured: 0.25,
			Judge: &release.JudgeState{Since: now, Evidence: 0.123, SlowEvidence: 4321, Verdict: "it\nwaits"}},
		{Service: "venus", Group: "canary", Share: 0.5, Configured: 0.25, Override: &release.Share{Share: 0.5, By: release.ByOperator, Since: now},
			Judge: &release.JudgeState{Since: now, Evidence: 1, SlowEvidence: 1, Paused: true}},
	}
	show(`SERVICE  GROUP   SHARE  CONFIGURED  SET BY    FOR   JUDGE   FAILING  SLOWER   WHY
moon     new     0.1%   0.1%        -         -     none    -        -        
star     canary  0%     5%          judge     1h1m  idle    -        -        5 % of 100 requests fail
sun      canary  25%    25%         -         -     judges  0.12     4.3e+03  it?waits
venus    canary  50%    25%         operator  0s    paused  1        1        
`)
	status, stdout, _ := execute(t, "shares", "--json", "--admin", address)
	verify.That(t, status == exitOK && stdout[0] == '[', "status %d\n%s", status, stdout)
}

func TestSharesOrders(t *testing.T) {
	address, splits, last := serveShares(t)
	*splits = []release.State{{Service: "star", Group: "canary", Share: 0.05, Configured: 0.05}}
	do := func(wantStatus int, wantOrder release.Order, want string, args ...string) {
		t.Helper()
		*last = release.Order{}
		commandsTo(t, address)(wantStatus, want, append([]string{"shares"}, args...)...)
		verify.Equal(t, *last, wantOrder, "%q: order", args)
	}
	do(exitOK, release.Order{Service: "star", Verb: release.Release}, "star: canary gets 5%\n", "clear", "star")
	(*splits)[0].Override = &release.Share{Group: "canary", Share: 0.1, Configured: 0.05, By: release.ByOperator, Why: "the database\tis ready"}
	(*splits)[0].Judge = &release.JudgeState{Paused: true}
	const line = "star: canary gets 10%, set by operator, configured 5%: the database?is ready (the judge is paused)\n"
	do(exitOK, release.Order{Service: "star", Verb: release.Set, Share: 0.1}, line, "set", "star", "10%")
	do(exitOK, release.Order{Service: "star", Verb: release.Set, Share: 0.005, Group: "canary", Why: "a b"}, line,
		"set", "star", "canary", "0.005", "--why", "a b")
	do(exitOK, release.Order{Service: "star", Verb: release.Pause, Why: "look"}, line, "pause", "star", "--why", "look")
	api := "sluice: admin API at " + address + ": "
	do(exitFailed, release.Order{Service: "star", Verb: release.Resume}, api+"service \"star\": the judge is not paused\n", "resume", "star")
	do(exitFailed, release.Order{Service: "a/b", Verb: release.Pause},
		api+"service \"a/b\": no service with this name and a split that has the share of one group\n", "pause", "a/b")

	const help = "Run \"sluice shares set --help\" for help.\n"
	for share, want := range map[string]string{
		"5%%":  "share \"5%%\": want a number from 0 to 1, or a percentage",
		"101%": "share \"101%\": want a number from 0 to 1, or a percentage",
		"-1%":  "unknown shorthand flag: '1' in -1%",
		"":     "share \"\": want a number from 0 to 1, or a percentage",
	} {
		do(exitUsage, release.Order{}, "sluice: "+want+"\n"+help, "set", "star", share)
	}
	do(exitUsage, release.Order{}, "sluice: want SERVICE, perhaps GROUP, and SHARE\n"+help, "set", "star")
	do(exitUsage, release.Order{}, "sluice: name one service\nRun \"sluice shares clear --help\" for help.\n", "clear")
	do(exitUsage, release.Order{}, "sluice: unexpected argument \"star\"\nRun \"sluice shares --help\" for help.\n", "star")
}
