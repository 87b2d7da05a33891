package locality

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/test/verify"
)

// machine returns a machine with loopback, 10.0.0.5, fd00::5 and fe80::5.
func machine(registries ...string) *Machine {
	m := newMachine(func() ([]net.Addr, error) {
		var all []net.Addr
		for _, s := range []string{"127.0.0.1/8", "::1/128", "10.0.0.5/24", "fd00::5/64", "fe80::5/64"} {
			ip, network, _ := net.ParseCIDR(s)
			all = append(all, &net.IPNet{IP: ip, Mask: network.Mask})
		}
		return all, nil
	})
	m.Ask(registries)
	return m
}

const agent = "http://127.0.0.1:8500"

var (
	operator = Origin{Trusted: true}
	here     = Origin{Node: "a", NodeAddress: "10.0.0.5"}
	dev      = Origin{Node: "a", NodeAddress: "127.0.0.1"}
	there    = Origin{Node: "b", NodeAddress: "10.0.0.6"}
	nowhere  = Origin{}
)

func TestListenersOfThisSluice(t *testing.T) {
	for _, test := range []struct {
		listener string
		own, not string // of the addresses to connect to
	}{
		{
			"127.0.0.1:8081",
			"127.0.0.1:8081 [::ffff:127.0.0.1]:8081 0.0.0.0:8081 [::]:8081 [::ffff:0.0.0.0]:8081",
			"127.0.0.1:8082 127.0.0.2:8081 [::1]:8081 10.0.0.5:8081 10.0.0.6:8081",
		},
		{
			"[::1]:8081",
			"[::1]:8081 [::]:8081 0.0.0.0:8081",
			"127.0.0.1:8081 10.0.0.5:8081 [fd00::5]:8081",
		},
		{
			"10.0.0.5:8081",
			"10.0.0.5:8081 [::ffff:10.0.0.5]:8081",
			"127.0.0.1:8081 0.0.0.0:8081 10.0.0.6:8081 10.0.0.5:8080",
		},
		{
			"[fe80::5%eth0]:8081",
			"[fe80::5]:8081 [fe80::5%eth0]:8081 [fe80::5%2]:8081",
			"[fd00::6]:8081",
		},
		{
			"[::]:8081", // IPv4, too
			"127.0.0.1:8081 127.9.9.9:8081 [::1]:8081 0.0.0.0:8081 [::]:8081 10.0.0.5:8081 [::ffff:10.0.0.5]:8081 [fd00::5]:8081 [fe80::5%eth0]:8081",
			"10.0.0.6:8081 [fd00::6]:8081 10.0.0.5:8080 127.0.0.1:80",
		},
		{
			"0.0.0.0:8081",
			"127.0.0.1:8081 127.9.9.9:8081 0.0.0.0:8081 [::]:8081 10.0.0.5:8081 [::ffff:10.0.0.5]:8081",
			"[::1]:8081 [fd00::5]:8081 10.0.0.6:8081",
		},
	} {
		m := machine(agent)
		m.Listen([]Listener{{Name: "web", Address: netip.MustParseAddrPort("192.0.2.1:1")}, {Name: "admin", Address: netip.MustParseAddrPort(test.listener)}})
		for _, from := range []Origin{operator, here, dev} {
			for _, to := range strings.Fields(test.own) {
				err := m.MayConnect(netip.MustParseAddrPort(to), from)
				verify.That(t, err != nil && strings.HasSuffix(err.Error(), `is the listener "admin" of sluice itself`),
					"listener %s, from %+v to %s: %v", test.listener, from, to, err)
			}
			for _, to := range strings.Fields(test.not) {
				err := m.MayConnect(netip.MustParseAddrPort(to), from)
				verify.That(t, err == nil, "listener %s, from %+v to %s: %v", test.listener, from, to, err)
			}
		}
	}
}

func TestAmbiguousAddresses(t *testing.T) {
	const own = "127.0.0.1:80 127.9.9.9:80 [::1]:80 [::ffff:127.0.0.1]:80 0.0.0.0:80 [::]:80"
	const never = "169.254.169.254:80 169.254.1.1:80 [::ffff:169.254.169.254]:80 [fe80::1]:80 [fe80::1%eth0]:80 [fd00:ec2::254]:80 100.100.100.200:80 168.63.129.16:32526 192.0.0.192:80"
	const routable = "10.0.0.5:80 10.0.0.6:80 192.168.1.1:80 172.17.0.2:80 [fd00::1]:80 [2001:db8::1]:80"
	local, remote := []string{"http://10.0.0.9:8500", agent}, []string{"http://10.0.0.9:8500", "https://consul.example:8501"}
	for _, test := range []struct {
		what       string
		registries []string
		from       Origin
		want       bool
	}{
		{"named by the operator", remote, operator, true},
		{"registered on this machine", local, here, true},
		{"registered with an agent for trying it out", local, dev, true},
		{"registered with an agent on localhost", []string{"http://localhost:8500"}, dev, true},
		{"registered with an agent on a socket", []string{"unix:///run/consul.sock"}, dev, true},
		{"registered with an agent at this machine's address", []string{"https://10.0.0.5:8501"}, here, true},
		{"registered with an agent at this machine's IPv6 address", []string{"https://[fd00::5]:8501"}, dev, true},
		{"registered on a node by the IPv6 form of this machine's address", local, Origin{NodeAddress: "::ffff:10.0.0.5"}, true},
		{"registered elsewhere", local, there, false},
		{"registered nobody knows where", local, nowhere, false},
		{"registered on a node with a name for an address", local, Origin{NodeAddress: "a.example"}, false},
		{"registered with an agent for trying it out on another machine", remote, dev, false},
		{"registered on this machine, as an agent elsewhere says", remote, here, false},
		{"without a registry", nil, dev, false},
	} {
		m := machine(test.registries...)
		for _, to := range strings.Fields(own) {
			err := m.MayConnect(netip.MustParseAddrPort(to), test.from)
			verify.Equal(t, err == nil, test.want, "%s, to %s: it may, with %v", test.what, to, err)
		}
		for _, to := range strings.Fields(never) {
			verify.That(t, m.MayConnect(netip.MustParseAddrPort(to), test.from) != nil, "%s, to %s: it may", test.what, to)
		}
		for _, to := range strings.Fields(routable) {
			err := m.MayConnect(netip.MustParseAddrPort(to), test.from)
			verify.That(t, err == nil, "%s, to %s: %v", test.what, to, err)
		}
	}
}

// Addresses change, and may be unreadable for a while.
func TestAddressesAreRefreshed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		address, reads, broken := "10.0.0.5/24", 0, false
		m := newMachine(func() ([]net.Addr, error) {
			reads++
			if broken {
				return nil, errors.New("netlink")
			}
			ip, network, _ := net.ParseCIDR(address)
			return []net.Addr{&net.IPNet{IP: ip, Mask: network.Mask}}, nil
		})
		m.Listen([]Listener{{Name: "web", Address: netip.MustParseAddrPort("[::]:8080")}})
		expect := func(what, to string, own bool) {
			t.Helper()
			err := m.MayConnect(netip.MustParseAddrPort(to), operator)
			verify.That(t, (err != nil) == own, "%s: %s: %v", what, to, err)
		}
		expect("another port", "10.0.0.5:80", false)
		verify.Equal(t, reads, 0, "addresses were read without need")
		for range 100 {
			expect("its own", "10.0.0.5:8080", true)
		}
		expect("another machine's", "10.0.0.6:8080", false)
		verify.Equal(t, reads, 1, "times read")
		address = "10.0.0.6/24"
		time.Sleep(rereadAfter + 1)
		expect("it has moved away", "10.0.0.5:8080", false)
		expect("it has moved here", "10.0.0.6:8080", true)
		broken = true
		time.Sleep(rereadAfter + 1)
		expect("not readable", "10.0.0.6:8080", true)
	})
}

// The addresses of the real machine.
func TestThisMachine(t *testing.T) {
	m := New()
	m.Ask([]string{agent})
	l := verify.Result(net.Listen("tcp", ":0")).Must(t)
	defer l.Close()
	m.Listen([]Listener{{Name: "web", Address: l.Addr().(*net.TCPAddr).AddrPort()}})
	for _, a := range verify.Result(net.InterfaceAddrs()).Must(t) {
		ip, _ := netip.AddrFromSlice(a.(*net.IPNet).IP)
		to := netip.AddrPortFrom(ip, uint16(l.Addr().(*net.TCPAddr).Port))
		verify.That(t, m.MayConnect(to, operator) != nil, "%s is not an address of this machine", to)
	}
}

// A unix socket is recognized by its file, under any name.
func TestSocketOfAListener(t *testing.T) {
	dir := t.TempDir()
	own, other, link := filepath.Join(dir, "own"), filepath.Join(dir, "other"), filepath.Join(dir, "link")
	for _, path := range []string{own, other} {
		verify.NoError(t, os.WriteFile(path, nil, 0o600))
	}
	verify.NoError(t, os.Symlink(own, link))
	m := New()
	m.Listen([]Listener{{Name: "tcp", Address: netip.MustParseAddrPort("[::]:8080")}, {Name: "web", Path: own}})
	for path, want := range map[string]bool{own: false, link: false, dir + "//own": false, other: true, filepath.Join(dir, "none"): true} {
		verify.Equal(t, m.MayUseSocket(path) == nil, want, "%s may be used", path)
	}
	// No socket is taken for an address.
	verify.NoError(t, m.MayConnect(netip.MustParseAddrPort("192.0.2.1:0"), operator))
}

func TestAmbiguousHosts(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1": true, "127.9.9.9": true, "::1": true, "::ffff:127.0.0.1": true,
		"0.0.0.0": true, "::": true, "::ffff:0.0.0.0": true,
		"169.254.169.254": true, "fe80::1": true, "fe80::1%eth0": true, "::ffff:169.254.1.1": true,
		"localhost": true, "LOCALHOST": true, "localhost.": true, "app.localhost": true,

		"10.0.0.1": false, "172.17.0.2": false, "192.168.0.1": false, "fd00::1": false, "2001:db8::1": false,
		"128.0.0.1": false, "1.0.0.127": false, "": false, "app": false, "localhost.example.com": false, "mylocalhost": false,
	} {
		verify.Equal(t, Ambiguous(host), want, "%q", host)
	}
}
