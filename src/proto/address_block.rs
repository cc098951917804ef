//! Blocks of IP addresses, and who has how much of what is shared: what one party can take without effort is one share.
//!
//! Keys cost nothing, addresses do. So whatever peers take of a node is counted by the address it comes from and by the
//! [`AddressBlock`] around it. Addresses of [`TrustedNets`] have no share: one machine, one office or one cluster behind an
//! address is the normal small network. What they take is bounded by what there is in all.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::BTreeMap;
use std::fmt;

use std::str::FromStr;

/// Bits of an IPv4 address that name its block: the smallest net that the routing of the Internet knows.
const BLOCK_BITS_V4: u8 = 24;
/// Bits of an IPv6 address that name its block: what a provider gives to one customer.
const BLOCK_BITS_V6: u8 = 48;
/// Bits of an IPv6 address that name its subnet. Who has one has all 2^64 addresses of it, so it counts as one address.
const SUBNET_BITS_V6: u8 = 64;

/// The nets that are trusted unless the configuration names others: this machine and networks that the Internet does not reach.
pub const TRUSTED_NETS: [&str; 8] = [
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
];

/// The block around an address: an IPv4 /24 or an IPv6 /48.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressBlock(IpAddr);

impl AddressBlock {
    /// The block in which an address lies.
    pub fn of(ip: IpAddr) -> AddressBlock {
        let ip = ip.to_canonical();
        AddressBlock(first_of(ip, if ip.is_ipv4() { BLOCK_BITS_V4 } else { BLOCK_BITS_V6 }))
    }
}

impl fmt::Display for AddressBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, if self.0.is_ipv4() { BLOCK_BITS_V4 } else { BLOCK_BITS_V6 })
    }
}

/// Where something comes from, as shares are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// The address; of IPv6 its subnet.
    pub address: IpAddr,
    /// The block around it.
    pub block: AddressBlock,
}

impl Source {
    /// The source that an address is.
    pub fn of(ip: IpAddr) -> Source {
        let ip = ip.to_canonical();
        let address = if ip.is_ipv4() { ip } else { first_of(ip, SUBNET_BITS_V6) };
        Source { address, block: AddressBlock::of(ip) }
    }
}

/// A net, written `10.0.0.0/8`; an address alone is a net of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    first: IpAddr,
    bits: u8,
}

/// Why a text names no net.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no net such as 10.0.0.0/8 or fd00::/8")]
pub struct NotANet;

impl Net {
    /// Whether an address lies in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.first.is_ipv4() && first_of(ip, self.bits) == self.first
    }
}

impl FromStr for Net {
    type Err = NotANet;

    fn from_str(text: &str) -> Result<Net, NotANet> {
        let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
        let ip: IpAddr = ip.parse().map_err(|_| NotANet)?;
        let all = if ip.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(all), str::parse).map_err(|_| NotANet)?;
        if bits > all {
            return Err(NotANet);
        }
        Ok(Net { first: first_of(ip, bits), bits })
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

/// The nets whose addresses have no share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedNets(pub Vec<Net>);

impl TrustedNets {
    /// No net at all: every address has its share.
    pub const NONE: TrustedNets = TrustedNets(Vec::new());

    /// The source whose share an address counts against; none for a trusted one.
    pub fn source(&self, ip: IpAddr) -> Option<Source> {
        let trusted = self.0.iter().any(|net| net.contains(ip));
        (!trusted).then(|| Source::of(ip))
    }
}

impl Default for TrustedNets {
    fn default() -> TrustedNets {
        TrustedNets(TRUSTED_NETS.iter().filter_map(|net| net.parse().ok()).collect())
    }
}

/// How much of something one source may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// From one address.
    pub per_address: usize,
    /// From one block.
    pub per_block: usize,
}

/// How much each source has taken of something.
#[derive(Debug)]
pub struct Shares {
    share: Share,
    addresses: BTreeMap<IpAddr, usize>,
    blocks: BTreeMap<AddressBlock, usize>,
}

impl Shares {
    /// Nobody has taken anything.
    pub fn new(share: Share) -> Shares {
        Shares { share, addresses: BTreeMap::new(), blocks: BTreeMap::new() }
    }

    /// Whether a source may take `more`.
    pub fn has_room(&self, source: Option<Source>, more: usize) -> bool {
        let Some(Source { address, block }) = source else { return true };
        let fits = |taken: Option<&usize>, most| taken.copied().unwrap_or(0).saturating_add(more) <= most;
        fits(self.addresses.get(&address), self.share.per_address)
            && fits(self.blocks.get(&block), self.share.per_block)
    }

    /// Counts what a source takes.
    pub fn add(&mut self, source: Option<Source>, more: usize) {
        let Some(Source { address, block }) = source.filter(|_| more > 0) else { return };
        *self.addresses.entry(address).or_default() += more;
        *self.blocks.entry(block).or_default() += more;
    }

    /// Counts what a source gives back.
    pub fn remove(&mut self, source: Option<Source>, less: usize) {
        let Some(Source { address, block }) = source else { return };
        give_back(&mut self.addresses, address, less);
        give_back(&mut self.blocks, block, less);
    }

    /// Counts one, if there is room for it.
    pub fn take(&mut self, source: Option<Source>) -> bool {
        let has_room = self.has_room(source, 1);
        if has_room {
            self.add(source, 1);
        }
        has_room
    }

    /// Whether nothing is taken.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.blocks.is_empty()
    }
}

fn give_back<K: Ord>(taken: &mut BTreeMap<K, usize>, key: K, less: usize) {
    let Some(count) = taken.get_mut(&key) else { return };
    // Only what was taken is given back, so the count covers it.
    *count = count.saturating_sub(less);
    if *count == 0 {
        // A table of sources that once came would grow with every new address.
        taken.remove(&key);
    }
}

/// The first address of the net of `bits` around `ip`.
fn first_of(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => IpAddr::V4((ip.to_bits() & ones(bits, 32) as u32).into()),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & ones(bits, 128))),
    }
}

/// As many leading ones as `bits`, in a number of `width` bits.
fn ones(bits: u8, width: u8) -> u128 {
    let all = u128::MAX >> (128 - u32::from(width));
    // A shift by the whole width has no meaning, so that one is said apart.
    all.checked_shr(u32::from(bits)).filter(|_| bits < width).map_or(all, |rest| all ^ rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_block_is_a_24_of_ipv4_and_a_48_of_ipv6() {
        let block = |text: &str| AddressBlock::of(ip(text)).to_string();
        assert_eq!(block("192.0.2.77"), "192.0.2.0/24");
        assert_eq!(block("::ffff:192.0.2.77"), "192.0.2.0/24", "a mapped address is the IPv4 address");
        assert_eq!(block("2001:db8:1:2:3:4:5:6"), "2001:db8:1::/48");
        assert_ne!(block("127.0.1.1"), block("127.0.2.1"));
    }

    #[test]
    fn every_address_of_an_ipv6_subnet_is_one_address() {
        let source = |text: &str| Source::of(ip(text)).address;
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::9"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
    }

    #[test]
    fn a_net_contains_its_addresses_and_no_others() {
        let contains = |net: &str, address: &str| net.parse::<Net>().unwrap().contains(ip(address));
        assert!(contains("10.0.0.0/8", "10.255.1.2") && !contains("10.0.0.0/8", "11.0.0.0"));
        assert!(contains("10.9.9.9/8", "10.1.1.1"), "what stands behind the prefix does not matter");
        assert!(contains("192.0.2.1", "192.0.2.1") && !contains("192.0.2.1", "192.0.2.2"));
        assert!(contains("0.0.0.0/0", "8.8.8.8") && !contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("::/0", "2001:db8::1") && contains("fe80::/10", "fe80::1"));
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "::1/129", "10.0.0.0/", "10.0.0.0/-1", "localhost"] {
            assert_eq!(wrong.parse::<Net>(), Err(NotANet), "{wrong}");
        }
    }

    #[test]
    fn loopback_and_private_addresses_have_no_share_unless_it_is_said_otherwise() {
        let default = TrustedNets::default();
        assert_eq!(default.0.len(), TRUSTED_NETS.len(), "each of them is a net");
        for trusted in ["127.9.9.9", "::ffff:127.0.0.1", "192.168.1.1", "172.31.0.1", "::1", "fd00::1"] {
            assert_eq!(default.source(ip(trusted)), None, "{trusted}");
            assert!(TrustedNets::NONE.source(ip(trusted)).is_some());
        }
        for stranger in ["172.32.0.1", "8.8.8.8", "2001:db8::1", "100.64.0.1"] {
            assert!(default.source(ip(stranger)).is_some(), "{stranger}");
        }
    }

    #[test]
    fn a_source_that_has_its_share_waits_for_its_own_and_for_nobody_elses() {
        let mut shares = Shares::new(Share { per_address: 2, per_block: 3 });
        let [a, b, c] = ["192.0.2.1", "192.0.2.2", "198.51.100.1"].map(|text| Some(Source::of(ip(text))));
        let taken = [a, a, a, b, b, c].map(|source| shares.take(source));
        assert_eq!(taken, [true, true, false, true, false, true]);
        shares.remove(a, 1);
        assert!(shares.take(b), "the block has room again");
        assert!((0..1_000).all(|_| shares.take(None)), "who is trusted has no share");
        for source in [a, b, b, c] {
            shares.remove(source, 1);
        }
        assert!(shares.is_empty());
    }
}
