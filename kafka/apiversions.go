package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// maxSoftwareBytes bounds what a client may call itself.
const maxSoftwareBytes = 255

// apiVersions answers with what is served. Nothing is listed that is not: no
// feature is finalised, and clients know from that what they have to do without.
func (s *Server) apiVersions(_ context.Context, p *peer, req *kmsg.ApiVersionsRequest) kmsg.Response {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.Version = req.Version
	if req.Version >= 3 {
		if !validSoftware(req.ClientSoftwareName) || !validSoftware(req.ClientSoftwareVersion) {
			resp.ErrorCode = p.error(errcode.Errorf(errcode.InvalidRequest, "software %q version %q", req.ClientSoftwareName, req.ClientSoftwareVersion))
			return resp
		}
		p.conn.log.Debug("client", "id", p.clientID, "software", req.ClientSoftwareName, "version", req.ClientSoftwareVersion)
	}
	resp.FinalizedFeaturesEpoch = s.broker.MetadataIndex()
	for i := range s.apis.all {
		resp.ApiKeys = append(resp.ApiKeys, s.apis.all[i].offer())
	}
	return resp
}

// offer is the api as ApiVersions lists it.
func (a *api) offer() kmsg.ApiVersionsResponseApiKey {
	k := kmsg.NewApiVersionsResponseApiKey()
	k.ApiKey, k.MinVersion, k.MaxVersion = a.key, a.advertised, a.max
	return k
}

// newerVersions is the answer to an ApiVersions request of a version that is not
// served. It is of version 0, which every client reads, and says which versions
// of ApiVersions there are, so that the client asks again (KIP-511).
func (q *request) newerVersions() []byte {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.ErrorCode = q.error(errcode.Errorf(errcode.UnsupportedVersion, "ApiVersions version %d", q.version))
	resp.ApiKeys = append(resp.ApiKeys, q.api.offer())
	return resp.AppendTo(nil)
}

// validSoftware reports whether s is what a client may call itself: letters and
// digits, and between them hyphens and dots.
func validSoftware(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		inner := i > 0 && i < len(s)-1 && (c == '-' || c == '.')
		if !letter && !inner {
			return false
		}
	}
	return s != "" && len(s) <= maxSoftwareBytes
}
