package kafka

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// resolveTimeout is how long a look-up of an advertised host may take.
const resolveTimeout = 5 * time.Second

// checkAdvertised looks, once for each listener, whether clients can mean the
// address that they are about to be told, and logs which setting to change if
// they evidently cannot. It does not wait.
func (s *Server) checkAdvertised(p *peer) {
	via := p.listener()
	fresh := func(what string) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		key := via.Name + " " + what
		if _, done := s.checked[key]; done {
			return false
		}
		s.checked[key] = struct{}{}
		return true
	}
	warn := func(why string) {
		s.log.Warn("clients are told an address that they can hardly reach; set advertise to the HOST:PORT that they connect to",
			"listener", via.Name, "advertise", via.Advertise, "because", why, "client", p.address().String())
	}
	host, _, err := net.SplitHostPort(via.Advertise)
	if err != nil {
		return // a node does not start with such a one
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case err == nil && ip.IsUnspecified():
		if fresh("unspecified") {
			warn(host + " is every address of a machine, and none to connect to")
		}
	case (err == nil && ip.Unmap().IsLoopback() || host == "localhost") && isRemote(p.address()):
		if fresh("loopback") {
			warn(host + " is the client's own machine, and the client is on another")
		}
	case err != nil && fresh("name"):
		s.background.Go(func() {
			ctx, cancel := context.WithTimeout(s.ctx, resolveTimeout)
			defer cancel()
			if err := s.opt.Resolve(ctx, host); err != nil && s.ctx.Err() == nil {
				warn(fmt.Sprintf("%s is not a name that this machine can resolve (%v); a container's name means nothing outside its network", host, err))
			}
		})
	}
}

// isRemote reports whether an address is known not to be this machine's own
// loopback.
func isRemote(a net.Addr) bool {
	ap, err := netip.ParseAddrPort(a.String())
	return err == nil && !ap.Addr().Unmap().IsLoopback()
}
