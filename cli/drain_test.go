package cli

import (
	"net/http"
	"regexp"
	"testing"

	"sluice/admin"
	"sluice/balancer"
	"sluice/discovery"
	"sluice/test/balancertest"
	"sluice/test/operatortest"
	"sluice/test/verify"
)

// servePools serves the admin API with a pool for each service of the instances.
func servePools(t *testing.T, sets ...[]discovery.Instance) (address string, pools []*balancer.Pool) {
	t.Helper()
	for _, set := range sets {
		p := balancer.NewPool(set[0].Service, balancertest.Complete(balancer.Options{}))
		p.Apply(set)
		pools = append(pools, p)
	}
	all := func() []*balancer.Pool { return pools }
	return serveHandler(t, adminOf(all, admin.Tokens{}, operatortest.Obey(all)).ServeHTTP), pools
}

func instanceOf(service, id, node string, port int) discovery.Instance {
	return discovery.Instance{Service: service, ID: id, Node: node, Address: "10.0.0.1", Port: port, Weight: 1}
}

func TestDrainAndEnableCommands(t *testing.T) {
	star := []discovery.Instance{instanceOf("star", "star-1", "a", 1), instanceOf("star", "star", "a", 2), instanceOf("star", "star", "b", 3)}
	moon := []discovery.Instance{instanceOf("moon", "star-1", "a", 4), instanceOf("moon", "m/1", "a", 5)}
	address, pools := servePools(t, star, moon)
	do := commandsTo(t, address)
	do(exitOK, "moon/m/1 (10.0.0.1:5) is draining, 0 in flight: drain: by an operator\n", "drain", "--force", "m/1")
	do(exitOK, "moon/m/1 (10.0.0.1:5) is up, 0 in flight\n", "enable", "10.0.0.1:5")
	do(exitOK, "star/star-1 (10.0.0.1:1) is draining, 0 in flight: drain: new disk\n", "drain", "--force", "star/star-1", "--why", "new disk")
	do(exitOK, "moon/star-1 (10.0.0.1:4) is draining, 0 in flight: drain: by an operator\n", "drain", "--force", "star-1", "--service", "moon")
	do(exitOK, "star/star (10.0.0.1:3) is draining, 0 in flight: drain: by an operator\n", "drain", "--force", "10.0.0.1:3")
	do(exitFailed, "sluice: several peers match \"star-1\": name one by SERVICE/ID, or by its address with --service\nsluice:   moon/star-1  a  10.0.0.1:4\nsluice:   star/star-1  a  10.0.0.1:1\n", "enable", "star-1")
	pools[1].Apply([]discovery.Instance{instanceOf("moon", "m/1", "a", 1)})
	do(exitFailed, "sluice: several peers match \"10.0.0.1:1\": name one by SERVICE/ID, or by its address with --service\nsluice:   moon/m/1  a  10.0.0.1:1\nsluice:   star/star-1  a  10.0.0.1:1\n", "enable", "10.0.0.1:1")
	do(exitOK, "moon/m/1 (10.0.0.1:1) is up, 0 in flight\n", "enable", "10.0.0.1:1", "--service", "moon")
	pools[1].Apply(moon)
	do(exitFailed, "sluice: no peer \"nope\": \"sluice peers\" lists all\n", "drain", "--force", "nope")
	do(exitFailed, "sluice: no peer \"star/nope\": \"sluice peers\" lists all\n", "drain", "--force", "star/nope")
	do(exitFailed, "sluice: admin API at "+address+": service \"star\" has no peer \"nope\"\n", "enable", "star/nope")

	// Without the instance.
	pools[0].Apply(star[1:])
	do(exitOK, "star/star-1 (10.0.0.1:1) is not registered; it may get requests when it returns\n", "enable", "star/star-1")
	pools[0].Apply(star)
	do(exitOK, "star/star-1 (10.0.0.1:1) is draining, 0 in flight: drain: by an operator\n", "drain", "--force", "10.0.0.1:1")
	pools[0].Apply(star[1:])
	do(exitOK, "star/star-1 (10.0.0.1:1) is not registered; it may get requests when it returns\n", "enable", "star-1", "--service", "star")
}

func TestMaintenanceCommands(t *testing.T) {
	address, pools := servePools(t, []discovery.Instance{instanceOf("star", "star-1", "a", 1)})
	do := commandsTo(t, address)
	do(exitOK, "star is in maintenance: new disk\n", "maintenance", "on", "star", "--why", "new disk", "--except", "10.0.0.0/8, ::1")
	m := pools[0].Maintenance.Load()
	verify.Require(t, m != nil && m.Why == "new disk" && len(m.Except) == 2, "the pool has %+v", m)
	_, stdout, _ := execute(t, "orders", "--admin", address)
	verify.That(t, regexp.MustCompile(`\nmaintenance +the service star except for 10.0.0.0/8, ::1 +- .* new disk\n`).MatchString(stdout), "orders:\n%s", stdout)
	do(exitFailed, "sluice: admin API at "+address+": no service \"moon\"\n", "maintenance", "on", "moon")
	do(exitFailed, "sluice: admin API at "+address+": except \"home\": want up to 32 addresses and networks, with commas between them\n", "maintenance", "on", "star", "--except", "home")
	do(exitOK, "star is in use\n", "maintenance", "off", "star")
	verify.That(t, pools[0].Maintenance.Load() == nil, "the pool is still in maintenance")
	do(exitOK, "star is in use\n", "maintenance", "off", "star")
	do(exitUsage, "sluice: name one service\nRun \"sluice maintenance on --help\" for help.\n", "maintenance", "on")
}

func TestDrainWaitsForRequestsInFlight(t *testing.T) {
	address, pools := servePools(t, []discovery.Instance{instanceOf("star", "star-1", "a", 1)})
	token := verify.Result(pools[0].Pick(nil)).Must(t)
	for _, no := range []string{"1ms", "0s", "-5s"} { // as of a script that has computed what is left
		fails(t, "sluice: star/star-1 (10.0.0.1:1) still has 1 in flight after "+no+"\n", "drain", "--force", "star-1", "--wait", no, "--admin", address)
	}
	fails(t, "sluice: node a still has 1 in flight after 0s\n", "drain", "--force", "--node", "a", "--wait", "0s", "--admin", address)
	ended := make(chan string)
	go func() {
		_, stdout, stderr := execute(t, "drain", "--force", "star-1", "--wait", "1m", "--admin", address)
		ended <- stdout + stderr
	}()
	token.Done(balancer.Outcome{})
	verify.Equal(t, <-ended, "star/star-1 (10.0.0.1:1) is draining, 0 in flight: drain: by an operator\n", "<-ended")
	prints(t, exitOK, "--wait time", "drain", "--force", "--help")
}

// An instance may be in several services of sluice, such as two that select by tags: an order about
// it counts in all of them, and who waits to stop it waits for the requests of all.
func TestDrainWaitsInEachServiceOfAnInstance(t *testing.T) {
	set := []discovery.Instance{instanceOf("star", "star-1", "a", 1)}
	address, pools := servePools(t, set, set)
	blue := balancer.NewPool("blue", balancertest.Complete(balancer.Options{}))
	blue.Apply(set)
	pools[1] = blue
	token := verify.Result(blue.Pick(nil)).Must(t)
	fails(t, "sluice: star/star-1 (10.0.0.1:1) still has 1 in flight after 1ms\n", "drain", "--force", "star/star-1", "--wait", "1ms", "--admin", address)
	token.Done(balancer.Outcome{})
	do := commandsTo(t, address)
	do(exitOK, "star/star-1 (10.0.0.1:1) is draining, 0 in flight: drain: by an operator\n", "drain", "--force", "star/star-1", "--wait", "1m")
	// Its id alone is enough.
	do(exitOK, "blue/star-1 (10.0.0.1:1) is up, 0 in flight\nstar/star-1 (10.0.0.1:1) is up, 0 in flight\n", "enable", "star-1")
	do(exitOK, "blue/star-1 (10.0.0.1:1) is draining, 0 in flight: drain: by an operator\nstar/star-1 (10.0.0.1:1) is draining, 0 in flight: drain: by an operator\n", "drain", "--force", "star-1", "--wait", "1m")
}

// An instance that is registered with another agent during the wait is the same one, and its drain
// counts. At a loopback address it is another one.
func TestDrainWaitsForAnInstanceThatMovesToAnotherAgent(t *testing.T) {
	for host, want := range map[string]int{"10.0.0.1": exitFailed, "127.0.0.1": exitOK} {
		i := instanceOf("star", "star-1", "a", 1)
		i.Address, i.NodeAddress = host, "10.0.0.2"
		pool := balancer.NewPool("star", balancertest.Complete(balancer.Options{}))
		pool.Apply([]discovery.Instance{i})
		all := func() []*balancer.Pool { return []*balancer.Pool{pool} }
		api, moved := adminOf(all, admin.Tokens{}, operatortest.Obey(all)), i
		moved.Node, moved.NodeAddress = "b", "10.0.0.3"
		address := serveHandler(t, func(w http.ResponseWriter, r *http.Request) {
			api.ServeHTTP(w, r)
			if r.Method == http.MethodPost {
				pool.Apply([]discovery.Instance{moved})
				_, _ = pool.Pick(nil) // the drained one gets nothing
			}
		})
		if want == exitFailed {
			verify.Result(pool.Pick(nil)).Must(t)
		}
		prints(t, want, "", "drain", "--force", "star-1", "--wait", "1ms", "--admin", address)
	}
}

// Nodes of two data centres may have the same name.
func TestDrainOfANodeOfADataCentre(t *testing.T) {
	here, there := instanceOf("star", "star-1", "n", 1), instanceOf("star", "star-2", "n", 2)
	here.Datacenter, there.Datacenter = "dc1", "dc2"
	address, _ := servePools(t, []discovery.Instance{here, there})
	do := commandsTo(t, address)
	do(exitFailed, "sluice: admin API at "+address+": several data centres have a node \"n\": choose one with ?datacenter= (dc1, dc2)\n", "drain", "--force", "--node", "n")
	do(exitOK, "star/star-2 (10.0.0.1:2) is draining, 0 in flight: drain: node n: by an operator\n", "drain", "--force", "--node", "n", "--datacenter", "dc2")
	do(exitOK, "star/star-1 (10.0.0.1:1) is draining, 0 in flight: drain: node n: by an operator\n", "drain", "--force", "--node", "n", "--datacenter", "dc1")
	do(exitFailed, "sluice: admin API at "+address+": several data centres have a node \"n\": choose one with ?datacenter= (dc1, dc2)\n", "enable", "--node", "n")
	do(exitOK, "star/star-1 (10.0.0.1:1) is up, 0 in flight\n", "enable", "--node", "n", "--datacenter", "dc1")
}

func TestDrainsOfNodesWeightsAndOrders(t *testing.T) {
	first, second := instanceOf("star", "star-1", "a", 1), instanceOf("star", "star-2", "b", 2)
	address, _ := servePools(t, []discovery.Instance{first, second}, []discovery.Instance{instanceOf("moon", "m", "b", 3)})
	do := func(wantStatus int, want string, args ...string) {
		t.Helper()
		status, stdout, stderr := execute(t, append(args, "--admin", address)...)
		right := status == wantStatus && regexp.MustCompile("^"+want+"$").MatchString(stdout+stderr)
		verify.That(t, right, "%q: status %d\n%s%s want %d\n%s", args, status, stdout, stderr, wantStatus, want)
	}
	do(exitOK, "no orders\n", "orders")
	do(exitOK, `moon/m .10.0.0.1:3. is draining, 0 in flight: drain: node b: new disks\nstar/star-2 .10.0.0.1:2. is draining, 0 in flight: drain: node b: new disks\n`,
		"drain", "--force", "--node", "b", "--why", "new disks", "--wait", "1m")
	do(exitOK, `star/star-1 .10.0.0.1:1. is up, weight 5, 0 in flight\n`, "weight", "star-1", "5", "--for", "30m")
	do(exitOK, `ORDER +ABOUT +NODE +FOR +ENDS IN +BY +REPLICAS +WHY\ndrain +all its peers +b +[0-9]+s +- +.+@.+ +this one +new disks\nweight 5 +star/star-1 .10.0.0.1:1. +a +[0-9]+s +(30m0s|2[0-9]m.+) +.+@.+ +this one +\n`, "orders")
	do(exitOK, `(?s)SERVICE.*star-1 +10.0.0.1:1 +up +[0-9]+s +5 .*`, "peers")
	do(exitFailed, `sluice: admin API at .*: its node is drained: node b: new disks .POST /api/nodes/b/enable ends it.\n`, "enable", "star-2")
	do(exitOK, `(?s).*star/star-2 .10.0.0.1:2. is up, 0 in flight\n`, "enable", "--node", "b")
	do(exitOK, `star/star-1 .10.0.0.1:1. is up, weight 1, 0 in flight\n`, "weight", "star-1", "clear")
	do(exitOK, "no orders\n", "orders")
	do(exitFailed, `sluice: admin API at .*: no peer is registered with a node "x"\n`, "drain", "--force", "--node", "x")
	do(exitUsage, `(?s).*name a peer or a node, not both.*`, "drain", "--force", "star-1", "--node", "b")
	do(exitUsage, `(?s).*name one peer.*`, "drain")
	do(exitUsage, `(?s).*--datacenter is for --node.*`, "drain", "--force", "star-1", "--datacenter", "dc2")
	do(exitUsage, `(?s).*want a number from 1 to 65535, or clear.*`, "weight", "star-1", "0")
	do(exitUsage, `(?s).*--service is for a peer.*`, "drain", "--force", "--node", "b", "--service", "star")
	do(exitUsage, `(?s).*--service is for a peer.*`, "enable", "--node", "b", "--service", "star")
	for _, command := range [][]string{{"drain", "--force", "star-1"}, {"drain", "--force", "--node", "b"}, {"weight", "star-1", "5"}, {"maintenance", "on", "star"}} {
		for _, short := range []string{"0s", "-5m"} { // as of a script that has computed what is left
			do(exitFailed, `sluice: admin API at .*: for: want a duration from 1s to .*\n`, append(command, "--for", short)...)
		}
	}
	do(exitOK, "no orders\n", "orders")
	do(exitFailed, `(?s).*for: want a duration from 1s.*`, "drain", "--force", "star-1", "--for", "1ms")
}
