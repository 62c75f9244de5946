/*-------------------------------------------------------------------------
 *
 * endpoint.c
 *	  Which HTTP services may be named and connected to.
 *
 * A URL is taken apart here by a grammar that is narrower than every library's,
 * and put together again, so that no two parsers can understand it differently.
 *
 *-------------------------------------------------------------------------
 */
#include "connector/endpoint.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <strings.h>

typedef enum AddressKind
{
	ADDRESS_ORDINARY,			/* private ones, too: VPC endpoints have them */
	ADDRESS_LOOPBACK,
	ADDRESS_METADATA,			/* link-local, or known for a cloud's metadata service */
	ADDRESS_NONE				/* no single other machine: unspecified, broadcast, multicast */
} AddressKind;

/*---- addresses */

static AddressKind
kind_of_v4(uint32 a)
{
	if (a >> 24 == 127)
		return ADDRESS_LOOPBACK;
	if (a >> 24 == 0 || a >> 28 == 14 || a == 0xFFFFFFFF)
		return ADDRESS_NONE;
	if (a >> 16 == 0xA9FE ||	/* 169.254/16: AWS, Azure, Google and most others */
		a == 0x646464C8 ||		/* 100.100.100.200: Alibaba */
		a == 0xC00000C0 ||		/* 192.0.0.192: Oracle */
		a == 0xA83F8110)		/* 168.63.129.16: Azure's agent */
		return ADDRESS_METADATA;
	return ADDRESS_ORDINARY;
}

static uint32
v4_at(const unsigned char *p)
{
	return (uint32) p[0] << 24 | (uint32) p[1] << 16 | (uint32) p[2] << 8 | p[3];
}

static AddressKind
kind_of_v6(const unsigned char *p)
{
	static const unsigned char zero[16] = {0};
	static const unsigned char loopback[16] = {[15] = 1};
	static const unsigned char mapped[12] = {[10] = 0xFF,[11] = 0xFF};
	static const unsigned char nat64[6] = {0x00, 0x64, 0xFF, 0x9B, 0, 0};
	static const unsigned char nat64_local[6] = {0x00, 0x64, 0xFF, 0x9B, 0, 1};

	if (memcmp(p, zero, 16) == 0 || p[0] == 0xFF)
		return ADDRESS_NONE;
	if (memcmp(p, loopback, 16) == 0)
		return ADDRESS_LOOPBACK;
	/* link-local fe80::/10; fd00:ec2::/32 is where AWS has what it has at 169.254 */
	if ((p[0] == 0xFE && (p[1] & 0xC0) == 0x80) ||
		(p[0] == 0xFD && p[1] == 0 && p[2] == 0x0E && p[3] == 0xC2))
		return ADDRESS_METADATA;
	/* other forms of an IPv4 address: ::ffff:a.b.c.d, ::a.b.c.d, NAT64, 6to4 */
	if (memcmp(p, mapped, 12) == 0 || memcmp(p, zero, 12) == 0 ||
		memcmp(p, nat64, 6) == 0 || memcmp(p, nat64_local, 6) == 0)
		return kind_of_v4(v4_at(p + 12));
	if (p[0] == 0x20 && p[1] == 0x02)
		return kind_of_v4(v4_at(p + 2));
	return ADDRESS_ORDINARY;
}

static bool
allowed(AddressKind kind, KdaReach reach, bool plain)
{
	switch (kind)
	{
		case ADDRESS_ORDINARY:
			return !plain || reach == KDA_REACH_PROXY;
		case ADDRESS_LOOPBACK:
			return true;
		case ADDRESS_METADATA:
			return reach == KDA_REACH_MACHINE;
		case ADDRESS_NONE:
			break;
	}
	return false;
}

bool
kda_endpoint_may_connect(const struct sockaddr *address, KdaReach reach, bool plain)
{
	if (address->sa_family == AF_INET)
		return allowed(kind_of_v4(ntohl(((const struct sockaddr_in *) address)->sin_addr.s_addr)), reach, plain);
	if (address->sa_family == AF_INET6)
		return allowed(kind_of_v6(((const struct sockaddr_in6 *) address)->sin6_addr.s6_addr), reach, plain);
	return false;
}

/*---- the URL */

/* A host as it stands in a URL: an address in any spelling becomes the usual one.  False: it cannot be a host. */
static bool
read_host(const char *text, size_t len, char *host, size_t size, bool *is_address, AddressKind *kind)
{
	char		copy[256];
	struct in_addr v4;
	struct in6_addr v6;

	*is_address = true;
	if (len == 0 || len >= sizeof(copy))
		return false;
	memcpy(copy, text, len);
	copy[len] = '\0';
	if (copy[0] == '[')
	{
		char		shown[INET6_ADDRSTRLEN];

		copy[len - 1] = '\0';
		if (text[len - 1] != ']' || inet_pton(AF_INET6, copy + 1, &v6) != 1)
			return false;
		*kind = kind_of_v6(v6.s6_addr);
		snprintf(host, size, "[%s]", inet_ntop(AF_INET6, &v6, shown, sizeof(shown)));
		return true;
	}
	if (strspn(copy, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") != len ||
		copy[0] == '.' || copy[0] == '-')
		return false;
	/* 2852039166, 0xA9FEA9FE, 0251.0376.169.254: what a resolver would take for an address */
	if (inet_aton(copy, &v4))
	{
		char		shown[INET_ADDRSTRLEN];

		*kind = kind_of_v4(ntohl(v4.s_addr));
		snprintf(host, size, "%s", inet_ntop(AF_INET, &v4, shown, sizeof(shown)));
		return true;
	}
	*is_address = false;
	*kind = strcasecmp(copy, "localhost") == 0 ? ADDRESS_LOOPBACK : ADDRESS_ORDINARY;
	snprintf(host, size, "%s", copy);
	for (char *p = host; *p; p++)
		if (*p >= 'A' && *p <= 'Z')
			*p += 'a' - 'A';
	return true;
}

/* ":8443", or "" */
static bool
read_port(const char *text, size_t len, int *port)
{
	if (len == 0)
		return true;
	if (text[0] != ':' || len < 2 || len > 6)
		return false;
	*port = 0;
	for (size_t i = 1; i < len; i++)
	{
		if (text[i] < '0' || text[i] > '9')
			return false;
		*port = *port * 10 + (text[i] - '0');
	}
	return *port >= 1 && *port <= 65535;
}

/* What may stand in a path or query without being encoded. */
static bool
is_clean_path(const char *path)
{
	for (const char *p = path; *p; p++)
		if (*p <= ' ' || *p >= 0x7F || strchr("\"#<>\\^`{|}", *p))
			return false;
	return true;
}

bool
kda_endpoint_parse(const char *url, KdaReach reach, KdaEndpoint *out, char *why, size_t why_size)
{
	const char *authority;
	const char *host_end;
	size_t		len;
	char		host[264];
	int			port;
	bool		is_address;
	AddressKind kind;

	memset(out, 0, sizeof(KdaEndpoint));
	out->reach = reach;
	if (strncasecmp(url, "https://", 8) == 0)
		authority = url + 8;
	else if (strncasecmp(url, "http://", 7) == 0)
	{
		authority = url + 7;
		out->plain = true;
	}
	else
	{
		snprintf(why, why_size, reach == KDA_REACH_PROXY ? "It must begin with http:// or https://." : "It must begin with https://.");
		return false;
	}
	len = strcspn(authority, "/?#");
	if (memchr(authority, '@', len))
	{
		snprintf(why, why_size, "It must not have a user name or password in it.");
		return false;
	}
	if (strchr(authority, '#'))
	{
		snprintf(why, why_size, "It must not have a fragment (#).");
		return false;
	}
	host_end = authority[0] == '[' ? memchr(authority, ']', len) : memchr(authority, ':', len);
	if (authority[0] == '[' && host_end)
		host_end++;
	if (host_end == NULL)
		host_end = authority + len;
	port = out->plain ? 80 : 443;
	if (!read_host(authority, host_end - authority, host, sizeof(host), &is_address, &kind) ||
		!read_port(host_end, authority + len - host_end, &port))
	{
		snprintf(why, why_size, "It must name a host, as in https://host or https://host:port.");
		return false;
	}
	if (strlen(authority + len) >= sizeof(out->path) || !is_clean_path(authority + len) ||
		(reach != KDA_REACH_MACHINE && strcmp(authority + len, "") != 0 && strcmp(authority + len, "/") != 0))
	{
		snprintf(why, why_size, "It must end after the host and port.");
		return false;
	}
	if (kind == ADDRESS_METADATA && reach != KDA_REACH_MACHINE)
	{
		snprintf(why, why_size, "Link-local addresses and metadata services cannot be endpoints.");
		return false;
	}
	if (kind == ADDRESS_NONE)
	{
		snprintf(why, why_size, "It is not the address of one machine.");
		return false;
	}
	if (!allowed(kind, reach, out->plain))
	{
		snprintf(why, why_size, "Only addresses of this machine (localhost, 127.0.0.1) can be used without TLS; all others begin with https://.");
		return false;
	}
	out->loopback = kind == ADDRESS_LOOPBACK;
	out->default_port = port == (out->plain ? 80 : 443);
	if (out->default_port)
		snprintf(out->host, sizeof(out->host), "%s", host);
	else
		snprintf(out->host, sizeof(out->host), "%s:%d", host, port);
	snprintf(out->base, sizeof(out->base), "%s://%s", out->plain ? "http" : "https", out->host);
	snprintf(out->path, sizeof(out->path), "%s%s", authority[len] == '/' ? "" : "/", authority + len);
	return true;
}

/*---- AWS's own */

bool
kda_region_is_valid(const char *region)
{
	size_t		len = strlen(region);

	return len >= 3 && len <= 32 && region[0] >= 'a' && region[0] <= 'z' && region[len - 1] != '-' &&
		strspn(region, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

void
kda_endpoint_of_aws(const char *service, const char *region, KdaEndpoint *out)
{
	/* AWS's partitions, after botocore's partitions.json */
	static const struct
	{
		const char *prefix;
		const char *suffix;
	}			partitions[] = {
		{"cn-", "amazonaws.com.cn"},
		{"us-iso-", "c2s.ic.gov"},
		{"us-isob-", "sc2s.sgov.gov"},
		{"us-isof-", "csp.hci.ic.gov"},
		{"eu-isoe-", "cloud.adc-e.uk"},
		{"eusc-", "amazonaws.eu"},
	};
	const char *suffix = "amazonaws.com";

	for (int i = 0; i < lengthof(partitions); i++)
		if (strncmp(region, partitions[i].prefix, strlen(partitions[i].prefix)) == 0)
			suffix = partitions[i].suffix;
	memset(out, 0, sizeof(KdaEndpoint));
	out->reach = KDA_REACH_USER;
	out->default_port = true;
	snprintf(out->host, sizeof(out->host), "%s.%s.%s", service, region, suffix);
	snprintf(out->base, sizeof(out->base), "https://%s", out->host);
	snprintf(out->path, sizeof(out->path), "/");
}
