package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/discovery/consul"
)

const (
	// goneTimeout is how long a deregistration may take to be seen in the catalog.
	goneTimeout = 15 * time.Second

	// gonePoll is the pause between two looks for that.
	gonePoll = 250 * time.Millisecond
)

// Result is what became of a duplicate.
type Result string

// The results.
const (
	ResultDone     Result = "deregistered" // and gone from the catalog
	ResultWould    Result = "would"        // a dry run would have done it
	ResultLeft     Result = "left"         // it may not be touched, or not any more
	ResultDeclined Result = "declined"     // by the operator
	ResultFailed   Result = "failed"
)

// Fixed tells what became of a duplicate.
type Fixed struct {
	Service string `json:"service"`
	ID      string `json:"id"`
	Node    string `json:"node"`
	Address string `json:"address"`
	Result  Result `json:"result"`
	Detail  string `json:"detail"`
}

// Outcome returns a Fixed for the finding.
func (f Finding) Outcome(r Result, detail string) Fixed {
	return Fixed{Service: f.Service, ID: f.ID, Node: f.Node, Address: f.Address, Result: r, Detail: detail}
}

// Fix deregisters the duplicate that a finding of Examine is about, through the
// agent that registered it, and waits until it is gone from the catalog. Before
// that it looks again, in the mode "consistent": the registration must still be
// a duplicate, the same one must stay, and that must be passing. With dryRun it
// stops there.
func (d *Doctor) Fix(ctx context.Context, finding Finding, dryRun bool) Fixed {
	left := func(format string, args ...any) Fixed {
		return finding.Outcome(ResultLeft, fmt.Sprintf(format, args...))
	}
	switch {
	case finding.Fix == nil:
		return left("it is no duplicate")
	case !finding.Fix.Possible:
		return left("%s", finding.Fix.WhyNot)
	}
	f, err := d.again(ctx, finding.Service)
	if err != nil {
		return finding.Outcome(ResultFailed, "look again: "+err.Error())
	}
	now, still := findDuplicate(f, finding)
	switch {
	case !still:
		return left("it is no duplicate any more")
	case !now.Fix.Possible:
		return left("%s", now.Fix.WhyNot)
	case now.Fix.KeepID != finding.Fix.KeepID || now.Fix.KeepNode != finding.Fix.KeepNode:
		return left("the live registration is now %s on node %s: look again", now.Fix.KeepID, now.Fix.KeepNode)
	}
	stays := fmt.Sprintf("%s on node %s, passing, stays", now.Fix.KeepID, now.Fix.KeepNode)
	if dryRun {
		return finding.Outcome(ResultWould, fmt.Sprintf("would deregister it through %s; %s", now.Fix.Agent, stays))
	}
	owner, err := d.ownerOf(finding.Node, map[string]string{f.Agent.Node: ""})
	if err != nil || owner == nil {
		return finding.Outcome(ResultFailed, fmt.Sprintf("its agent: %v", err))
	}
	if err := deregister(ctx, owner, finding.ID); err != nil {
		return finding.Outcome(ResultFailed, explainDeregister(err, owner.URL, finding))
	}
	if err := d.awaitGone(ctx, finding); err != nil {
		detail := fmt.Sprintf("%s deregistered it, but %v", owner.URL, err)
		if f.Token.ACLs && errors.Is(err, errStillListed) {
			detail += ": it may be that " + agentLacks(finding.Node)
		}
		return finding.Outcome(ResultFailed, detail)
	}
	return finding.Outcome(ResultDone, fmt.Sprintf("deregistered through %s, and gone from the catalog; %s", owner.URL, stays))
}

// again gathers what matters for a service as of now.
func (d *Doctor) again(ctx context.Context, service string) (*Facts, error) {
	look := *d // the connections are shared
	look.consistent = true
	look.options.Services = []string{service}
	look.options.Uses, look.options.Configured = nil, false
	look.options.ConnectTimeout = 0
	f, err := look.gather(ctx)
	if err == nil && f.Agent.Leader == "" {
		err = errors.New("there is no leader")
	}
	return f, err
}

// findDuplicate returns the finding about the same registration as of now.
func findDuplicate(f *Facts, finding Finding) (Finding, bool) {
	for _, now := range f.duplicateFindings() {
		if now.Service == finding.Service && now.ID == finding.ID && now.Node == finding.Node && now.Address == finding.Address {
			return now, true
		}
	}
	return Finding{}, false
}

func deregister(ctx context.Context, owner *consul.API, id string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return owner.Agent().ServiceDeregisterOpts(id, query(ctx))
}

// explainDeregister says what was missing for a deregistration.
func explainDeregister(err error, agent string, finding Finding) string {
	if status(err) == 403 {
		return fmt.Sprintf("%s: %v: the token lacks service:write for %q", agent, plainly(err), finding.Service)
	}
	return fmt.Sprintf("%s: %v", agent, plainly(err))
}

// errStillListed: an agent has deregistered what the catalog goes on listing.
var errStillListed = errors.New("the catalog still lists it")

// awaitGone waits until the catalog does not list a registration any more.
func (d *Doctor) awaitGone(ctx context.Context, finding Finding) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.goneTimeout, fmt.Errorf("%w after %v", errStillListed, d.goneTimeout))
	defer cancel()
	tick := time.NewTicker(gonePoll)
	defer tick.Stop()
	unread := errors.New("no answer") // why the catalog could not be read last
	for {
		o := query(ctx)
		o.Datacenter, o.RequireConsistent = d.options.Datacenter, true
		entries, _, err := d.api.Health().Service(finding.Service, "", false, o)
		switch {
		case err == nil && !lists(entries, finding):
			return nil
		case err == nil || ctx.Err() == nil: // a query that the end of the time broke off says nothing
			unread = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if unread != nil {
				return fmt.Errorf("the catalog cannot be read: %w", plainly(unread))
			}
			return context.Cause(ctx)
		}
	}
}

func lists(entries []*api.ServiceEntry, finding Finding) bool {
	for _, e := range entries {
		if e.Node != nil && e.Service != nil && e.Node.Node == finding.Node && e.Service.ID == finding.ID {
			return true
		}
	}
	return false
}
