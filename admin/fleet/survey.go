package fleet

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/consul/registration"
	"sluice/discovery"
	"sluice/discovery/locality"
	"sluice/observe/panics"
)

const (
	surveyTimeout  = 4 * time.Second // for all
	askTimeout     = 2 * time.Second // for one replica
	maxQueries     = 8
	maxAnswerBytes = 64 << 10
)

// Survey queries all replicas. All fields must be set; it is safe for concurrent use.
type Survey struct {
	// Self returns this replica's own answer.
	Self func() Replica
	// List returns the instances of the registered service in Consul.
	List func(ctx context.Context) ([]discovery.Instance, error)
	// Secret returns the secret by which replicas prove who they are. Without one nobody is asked.
	Secret func() (string, error)
	// TLS returns how their certificates are verified; nil: by the system's, and replicas
	// without TLS are asked too.
	TLS func() (*tls.Config, error)
	// Control is of who names the addresses of the admin APIs.
	Control locality.Control
}

// Take queries every replica, for at most surveyTimeout. Errors are in the report.
func (s Survey) Take(ctx context.Context) Report {
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	self := s.Self()
	var r Report
	var err error
	if r.Replicas, err = s.members(ctx, self); err != nil {
		r.Error = err.Error()
	}
	s.query(ctx, r.Replicas, self)
	r.conclude()
	return r
}

// members returns the listed replicas and, if it is not listed, this one, also with an error.
func (s Survey) members(ctx context.Context, self Replica) (members []Member, err error) {
	listed, err := s.List(ctx)
	for _, i := range listed {
		members = append(members, listedMember(i, self))
	}
	if !slices.ContainsFunc(members, func(m Member) bool { return m.Self }) {
		members = append(members, Member{Name: self.Replica, Status: unregistered, Self: true, replica: self.Replica})
	}
	slices.SortFunc(members, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Address, b.Address))
	})
	name(members)
	return members, err
}

func listedMember(i discovery.Instance, self Replica) Member {
	m := Member{
		ID: i.ID, Node: i.Node, Datacenter: i.Datacenter, Address: i.HostPort(),
		Status: i.Status.String(), Detail: i.Detail,
		Host: i.Meta[registration.MetaHost], Version: i.Meta[registration.MetaVersion],
		ConfigHash: i.Meta[registration.MetaConfig],
		Pending:    []string{},
		replica:    i.Meta[registration.MetaReplica],
	}
	m.Self = m.replica == self.Replica
	if t, err := time.Parse(time.RFC3339, i.Meta[registration.MetaStarted]); err == nil {
		m.Started = encodable(t)
	}
	m.Admin = adminAddress(i.Meta[registration.MetaAdmin], i.Address)
	return m
}

// encodable returns t, or nil if it makes the report unreadable: a time of +24:00 can be parsed and
// not encoded again.
func encodable(t time.Time) *time.Time {
	if _, err := t.MarshalText(); err != nil {
		return nil
	}
	return &t
}

// adminAddress returns the address of the admin API that a replica has registered, for a service
// at the given host. It is "" if there is none.
func adminAddress(registered, service string) string {
	if strings.HasPrefix(registered, unix) {
		return registered
	}
	rest, secure := strings.CutPrefix(registered, https)
	host, port, err := net.SplitHostPort(rest)
	if err != nil || !isHost(cmp.Or(host, service)) {
		return ""
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return ""
	}
	address := net.JoinHostPort(cmp.Or(host, service), port)
	if secure {
		return https + address
	}
	return address
}

// isHost reports whether text is an address or a name, and nothing that leads elsewhere in a URL.
func isHost(text string) bool {
	_, err := netip.ParseAddr(text)
	return err == nil || hostPattern.MatchString(text)
}

var hostPattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,252})$`)

// What addresses of admin APIs begin with, if they have not just a host and a port.
const (
	https = "https://"
	unix  = "unix:"
)

// unregistered is the status of a replica that Consul does not list.
const unregistered = "unregistered"

// name sets the names of replicas, and marks duplicates.
func name(members []Member) {
	ids, replicas := make(map[string]int), make(map[string]int)
	for _, m := range members {
		ids[m.ID]++
	}
	for i := range members {
		m := &members[i]
		if m.Name == "" {
			m.Name = m.ID
			if ids[m.ID] > 1 {
				m.Name += "@" + m.Node
			}
		}
		if m.replica == "" {
			continue
		}
		first, again := replicas[m.replica]
		switch {
		case !again:
			replicas[m.replica] = i
		case members[first].Status == "critical" && m.Status != "critical": // of a dead agent
			members[first].Duplicate = true
			replicas[m.replica] = i
		default:
			m.Duplicate = true
		}
	}
}

// query fills in the replicas' own answers.
func (s Survey) query(ctx context.Context, members []Member, self Replica) {
	var queries errgroup.Group
	queries.SetLimit(maxQueries)
	secret, secretErr := s.secret()
	verified, tlsErr := s.TLS()
	client := s.client(verified, askTimeout)
	for i := range members {
		m := &members[i]
		switch {
		case m.Duplicate:
			m.Error = "duplicate: the replica is also registered with another agent"
		case m.Self:
			m.setAnswer(self)
		case m.obstacle(verified != nil) != "":
			m.Error = m.obstacle(verified != nil)
		case secretErr != nil:
			m.Error = secretErr.Error()
		case tlsErr != nil:
			m.Error = tlsErr.Error()
		default:
			queries.Go(func() error {
				defer panics.Contain(panics.Task, nil)
				answer, err := queryReplica(ctx, client, m, secret)
				if err != nil {
					m.Error = fmt.Sprintf("admin API at %s: %v", m.Admin, err)
				} else {
					m.setAnswer(answer)
				}
				return nil
			})
		}
	}
	_ = queries.Wait()
	client.CloseIdleConnections()
}

// client returns a client for admin APIs, without an HTTP proxy. timeout bounds a question, and
// also a dial and a TLS handshake: net/http goes on with them when their question has ended.
func (s Survey) client(verified *tls.Config, timeout time.Duration) *http.Client {
	dialer := locality.NewDialer(s.Control, timeout)
	return &http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSClientConfig: verified, TLSHandshakeTimeout: timeout,
			ForceAttemptHTTP2: verified == nil, IdleConnTimeout: 2 * listEvery, MaxResponseHeaderBytes: 16 << 10,
		},
		Timeout: timeout,
		// A redirect leads to an address that the list of replicas does not have.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// secret returns the secret. It is not empty without an error.
func (s Survey) secret() (string, error) {
	secret, err := s.Secret()
	if err == nil && secret == "" {
		err = errNoSecret
	}
	return secret, err
}

// obstacle returns why the admin API of m cannot be asked; "": it can. verified says that its
// certificate must be verified.
func (m *Member) obstacle(verified bool) string {
	switch {
	case m.replica == "":
		return "not registered by sluice"
	case m.Admin == "":
		return "its registration has no address of its admin API"
	case strings.HasPrefix(m.Admin, unix):
		return "its admin API is a unix socket"
	case verified && !strings.HasPrefix(m.Admin, https):
		return "its admin API does not use TLS, which consul.register.replica_tls requires"
	}
	return ""
}

// setAnswer copies a replica's answer into m.
func (m *Member) setAnswer(r Replica) {
	m.Host, m.Version, m.ConfigHash, m.Ready = r.Host, r.Version, r.ConfigHash, r.Ready
	m.Started = encodable(r.Started)
	m.Pending = append([]string{}, r.Pending...)
	m.Services, m.Instances, m.Parts = r.Services, r.Instances, r.Parts
	m.Unfinished, m.UnfinishedError = r.Unfinished, r.UnfinishedError
}

func queryReplica(ctx context.Context, client *http.Client, m *Member, secret string) (answer Replica, err error) {
	err = ask(ctx, client, m.Admin+"/api/replica", secret, m.replica, maxAnswerBytes, &answer)
	if err == nil && answer.Parts == nil {
		err = errors.New("not an answer of sluice: it has no parts")
	}
	return answer, err
}

// ask decodes the answer of the admin API of the replica with a name, of at most so many bytes.
func ask(ctx context.Context, client *http.Client, url, secret, name string, maxBytes int64, answer any) error {
	if !strings.HasPrefix(url, https) {
		url = "http://" + url
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	nonce := sign(request, secret, name)
	response, err := client.Do(request)
	if err != nil {
		return shorten(err)
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode == http.StatusUnauthorized:
		return errors.New("401 Unauthorized: another replica answers there, or one with another consul.register.replica_token_file, another clock or an earlier version of sluice")
	case response.StatusCode != http.StatusOK:
		return errors.New(response.Status)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBytes))
	if err != nil {
		return shorten(err)
	}
	if err := verifyAnswer(response.Header, secret, name, nonce, body); err != nil {
		return err
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return fmt.Errorf("not an answer of sluice: %w", err)
	}
	return nil
}

// errRefused says that nothing listens at an address.
var errRefused = errors.New("connection refused")

// shorten shortens common errors.
func shorten(err error) error {
	var timeout net.Error
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.As(err, &untrusted):
		return fmt.Errorf("%w: see consul.register.replica_tls", untrusted)
	case errors.Is(err, syscall.ECONNREFUSED):
		return errRefused
	case errors.As(err, &timeout) && timeout.Timeout():
		return errors.New("no answer in time")
	}
	return err
}
