package consultest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/hashicorp/consul/api"
)

// newSecret returns a random secret of a token, which must be a UUID (RFC 9562, section 5.4).
func newSecret() string {
	var b [16]byte
	rand.Read(b[:]) // does not fail
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// bootstrap sets up the ACLs of a new server like an operator. It creates the initial management
// token with the secret of a.client (consul acl bootstrap FILE), and with that a token for the
// agent (consul acl set-agent-token). It may be called again after an error.
// https://developer.hashicorp.com/consul/docs/security/acl/acl-rules
func (a *Agent) bootstrap(ctx context.Context) error {
	_, _, err := a.anonymous.ACL().BootstrapWithToken(a.options.Token)
	var status api.StatusError
	if errors.As(err, &status) && status.Code == http.StatusForbidden && strings.Contains(status.Body, "no longer allowed") {
		err = nil // the server has been bootstrapped before
	}
	if err != nil {
		return fmt.Errorf("bootstrap the ACLs: %w", err)
	}
	self, err := a.client.Agent().NodeName()
	if err != nil {
		return err
	}
	token, err := a.NewAgentToken(ctx, self)
	if err != nil {
		return err
	}
	_, err = a.client.Agent().UpdateAgentACLToken(token.SecretID, (&api.WriteOptions{}).WithContext(ctx))
	return err
}

// NewAgentToken creates a token for the agent of a node, which may write the entries of the
// node. It needs Options.ACLs, or a Token with the permission.
func (a *Agent) NewAgentToken(ctx context.Context, node string) (*api.ACLToken, error) {
	identity := &api.ACLNodeIdentity{NodeName: node, Datacenter: a.options.datacenter()}
	token, _, err := a.client.ACL().TokenCreate(
		&api.ACLToken{Description: "agent " + node, NodeIdentities: []*api.ACLNodeIdentity{identity}},
		(&api.WriteOptions{}).WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("make a token for the agent of node %s: %w", node, err)
	}
	return token, nil
}

// Token returns the secret of the token of Client.
func (a *Agent) Token() string { return a.options.Token }

// NewToken creates a policy with the rules, and a token with only this policy. It needs
// Options.ACLs, or a Token with the permission.
func (a *Agent) NewToken(name, rules string) (*api.ACLPolicy, *api.ACLToken, error) {
	policy, _, err := a.client.ACL().PolicyCreate(&api.ACLPolicy{Name: name, Rules: rules}, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("make the policy %q: %w", name, err)
	}
	token, _, err := a.client.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLLink{{ID: policy.ID}}}, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("make a token with the policy %q: %w", name, err)
	}
	return policy, token, nil
}

// DocumentedPolicy returns the first rules below a heading of a Markdown document, such as
// "## ACLs", so that tests use the rules that users copy.
func DocumentedPolicy(document, heading string) (rules string, err error) {
	text, err := os.ReadFile(document)
	if err != nil {
		return "", err
	}
	_, below, ok := strings.Cut(string(text), "\n"+heading+"\n")
	if !ok {
		return "", fmt.Errorf("%s has no heading %q", document, heading)
	}
	below, _, _ = strings.Cut(below, "\n## ")
	_, block, ok := strings.Cut(below, "\n```hcl\n")
	rules, _, closed := strings.Cut(block, "```")
	if !ok || !closed {
		return "", fmt.Errorf("%s shows no rules below %q", document, heading)
	}
	return rules, nil
}
