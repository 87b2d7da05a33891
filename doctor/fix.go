package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/consul"
	"sluice/observe/wake"
)

const (
	// goneTimeout bounds the wait for a deregistration to reach the catalog.
	goneTimeout = 15 * time.Second

	// gonePoll is the interval between queries for it.
	gonePoll = 250 * time.Millisecond
)

// Result is the result of fixing a duplicate.
type Result string

// The results.
const (
	ResultDone     Result = "deregistered" // and gone from the catalog
	ResultWould    Result = "would"        // a dry run
	ResultLeft     Result = "left"         // a fix is not possible (any more)
	ResultDeclined Result = "declined"     // by the operator
	ResultFailed   Result = "failed"
)

// Fixed is the result for one duplicate.
type Fixed struct {
	Service string `json:"service"`
	ID      string `json:"id"`
	Node    string `json:"node"`
	Address string `json:"address"`
	Result  Result `json:"result"`
	Detail  string `json:"detail"`
}

// FixOptions say how Doctor.Fix treats a duplicate.
type FixOptions struct {
	// DryRun: nothing is deregistered.
	DryRun bool
	// Confirmed: the operator has seen Fix.WhyNot of the finding, and confirms that both
	// registrations are for the same process. It has no effect without Fix.Confirm.
	Confirmed bool
}

func (f Finding) Outcome(r Result, detail string) Fixed {
	return Fixed{Service: f.Service, ID: f.ID, Node: f.Node, Address: f.Address, Result: r, Detail: detail}
}

// Fix deregisters the duplicate of a finding through the agent that registered it, and
// waits until it is gone from the catalog. First it queries again, in the mode
// "consistent": the registration must still be a duplicate, and the same other one must
// stay and be passing, and the operator must have confirmed what Fix.Confirm asks for. A
// dry run stops there.
func (d *Doctor) Fix(ctx context.Context, finding Finding, o FixOptions) Fixed {
	left := func(format string, args ...any) Fixed {
		return finding.Outcome(ResultLeft, fmt.Sprintf(format, args...))
	}
	switch {
	case finding.Fix == nil:
		return left("it is not a duplicate")
	case !finding.Fix.allowed(finding.Fix, o):
		return left("%s", finding.Fix.WhyNot)
	}
	f, err := d.again(ctx, finding.Service)
	if err != nil {
		return finding.Outcome(ResultFailed, "examine again: "+err.Error())
	}
	duplicates := f.duplicateFindings()
	n := slices.IndexFunc(duplicates, func(latest Finding) bool {
		return latest.Service == finding.Service && latest.ID == finding.ID && latest.Node == finding.Node && latest.Address == finding.Address
	})
	if n < 0 {
		return left("it is not a duplicate any more")
	}
	latest := duplicates[n]
	switch {
	case !latest.Fix.allowed(finding.Fix, o):
		return left("%s", latest.Fix.WhyNot)
	case latest.Fix.KeepID != finding.Fix.KeepID || latest.Fix.KeepNode != finding.Fix.KeepNode:
		return left("the live registration is now %s on node %s: run the doctor again", latest.Fix.KeepID, latest.Fix.KeepNode)
	}
	stays := fmt.Sprintf("%s on node %s, passing, stays", latest.Fix.KeepID, latest.Fix.KeepNode)
	if o.DryRun {
		condition := ""
		if latest.Fix.Confirm {
			condition = ", after you confirm that it is the same process: " + latest.Fix.WhyNot
		}
		return finding.Outcome(ResultWould, fmt.Sprintf("would deregister it through %s%s; %s", latest.Fix.Agent, condition, stays))
	}
	agent, err := d.agentOf(finding.Node, map[string]string{f.Agent.Node: ""})
	if err != nil || agent == nil {
		return finding.Outcome(ResultFailed, fmt.Sprintf("its agent: %v", err))
	}
	if err := deregister(ctx, agent, finding.ID); err != nil {
		return finding.Outcome(ResultFailed, explainDeregister(err, agent.URL, finding))
	}
	if err := d.awaitGone(ctx, finding); err != nil {
		detail := fmt.Sprintf("%s deregistered it, but %v", agent.URL, err)
		if f.Token.ACLs && errors.Is(err, errStillListed) {
			detail += ": it may be that " + agentLacks(finding.Node)
		}
		return finding.Outcome(ResultFailed, detail)
	}
	return finding.Outcome(ResultDone, fmt.Sprintf("deregistered through %s, and gone from the catalog; %s", agent.URL, stays))
}

// allowed reports whether Doctor.Fix may go on with f, where the operator has seen shown.
func (f *Fix) allowed(shown *Fix, o FixOptions) bool {
	confirmed := (o.Confirmed || o.DryRun) && shown.Confirm && shown.WhyNot == f.WhyNot
	return f.Possible || f.Confirm && confirmed
}

// again gathers the facts of one service.
func (d *Doctor) again(ctx context.Context, service string) (*Facts, error) {
	look := *d // the connections are shared
	look.consistent = true
	look.options.Services = []string{service}
	look.options.Uses, look.options.Config = nil, nil
	look.options.ConnectTimeout = 0
	f, err := look.gather(ctx)
	if err == nil && f.Agent.Leader == "" {
		err = errors.New("there is no leader")
	}
	return f, err
}

func deregister(ctx context.Context, agent *consul.API, id string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return agent.Agent().ServiceDeregisterOpts(id, query(ctx))
}

func explainDeregister(err error, agent string, finding Finding) string {
	if consul.StatusCode(err) == 403 {
		return fmt.Sprintf("%s: %v: the token lacks service:write for %q", agent, consul.Shorten(err), finding.Service)
	}
	return fmt.Sprintf("%s: %v", agent, consul.Shorten(err))
}

// errStillListed: the catalog lists a registration after the agent deregistered it.
var errStillListed = errors.New("the catalog still lists it")

// awaitGone waits until the catalog does not list the registration any more.
func (d *Doctor) awaitGone(ctx context.Context, finding Finding) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.goneTimeout, fmt.Errorf("%w after %v", errStillListed, d.goneTimeout))
	defer cancel()
	unread := errors.New("no answer") // error of the latest query
	err := wake.Repeat(ctx, gonePoll, func() (gone bool, _ error) {
		o := query(ctx)
		o.Datacenter, o.RequireConsistent = d.options.Datacenter, true
		entries, _, err := d.api.Health().Service(finding.Service, "", false, o)
		listed := slices.ContainsFunc(present(entries), func(e *api.ServiceEntry) bool {
			return e.Node != nil && e.Service != nil && e.Node.Node == finding.Node && e.Service.ID == finding.ID
		})
		if err == nil || ctx.Err() == nil { // not the error of a query cut by the timeout
			unread = err
		}
		return err == nil && !listed, nil
	})
	if err != nil && unread != nil {
		return fmt.Errorf("the catalog cannot be read: %w", consul.Shorten(unread))
	}
	return err
}
