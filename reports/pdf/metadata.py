"""Writes what makes a PDF a PDF/A-3u and a PDF/UA-1: metadata, colours, and attached files."""

from datetime import UTC, datetime
from importlib.resources import files
from xml.sax.saxutils import escape

import pikepdf
from pikepdf import Array, Dictionary, Name, String

from reports.attachments.record_json import moment
from reports.document import AttachedFile, Document

# The schema of pdfuaid is spelled out because PDF/A knows no other than its own (ISO 19005-3, 6.6.2.3).
_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:pdf="http://ns.adobe.com/pdf/1.3/" xmlns:pdfaid="http://www.aiim.org/pdfa/ns/id/"
 xmlns:pdfuaid="http://www.aiim.org/pdfua/ns/id/">
<pdfaid:part>3</pdfaid:part>
<pdfaid:conformance>U</pdfaid:conformance>
<pdfuaid:part>1</pdfuaid:part>
<dc:format>application/pdf</dc:format>
<dc:title><rdf:Alt><rdf:li xml:lang="x-default">{title}</rdf:li></rdf:Alt></dc:title>
<dc:creator><rdf:Seq><rdf:li>{author}</rdf:li></rdf:Seq></dc:creator>
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{subject}</rdf:li></rdf:Alt></dc:description>
<dc:language><rdf:Bag><rdf:li>en</rdf:li></rdf:Bag></dc:language>
<xmp:CreatorTool>{creator}</xmp:CreatorTool>
<xmp:CreateDate>{at}</xmp:CreateDate>
<xmp:ModifyDate>{at}</xmp:ModifyDate>
<pdf:Producer>{producer}</pdf:Producer>
</rdf:Description>
<rdf:Description rdf:about="" xmlns:pdfaExtension="http://www.aiim.org/pdfa/ns/extension/"
 xmlns:pdfaSchema="http://www.aiim.org/pdfa/ns/schema#" xmlns:pdfaProperty="http://www.aiim.org/pdfa/ns/property#">
<pdfaExtension:schemas><rdf:Bag><rdf:li rdf:parseType="Resource">
<pdfaSchema:schema>PDF/UA identification schema</pdfaSchema:schema>
<pdfaSchema:namespaceURI>http://www.aiim.org/pdfua/ns/id/</pdfaSchema:namespaceURI>
<pdfaSchema:prefix>pdfuaid</pdfaSchema:prefix>
<pdfaSchema:property><rdf:Seq><rdf:li rdf:parseType="Resource">
<pdfaProperty:name>part</pdfaProperty:name>
<pdfaProperty:valueType>Integer</pdfaProperty:valueType>
<pdfaProperty:category>internal</pdfaProperty:category>
<pdfaProperty:description>Part of ISO 14289 that the file conforms to</pdfaProperty:description>
</rdf:li></rdf:Seq></pdfaSchema:property>
</rdf:li></rdf:Bag></pdfaExtension:schemas>
</rdf:Description>
</rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""


def write_metadata(pdf: pikepdf.Pdf, document: Document) -> None:
    """Write the metadata, the language and the output intent of a PDF.

    The metadata stand in two places, the information dictionary and the XMP packet, with the same values:
    PDF/A asks for that.
    """
    values = {
        "title": document.title,
        "author": document.author,
        "subject": document.subject,
        "creator": f"kensa {document.software_version}",
        "producer": "kensa, WeasyPrint, pikepdf",
    }
    for key, text in values.items():
        pdf.docinfo[Name("/" + key.capitalize())] = String(text)
    pdf.docinfo[Name.CreationDate] = pdf.docinfo[Name.ModDate] = String(_date(document.issued_at))
    at = moment(document.issued_at.replace(microsecond=0))
    packet = _XMP.format(at=at, **{key: escape(text) for key, text in values.items()})
    root = pdf.Root
    root.Metadata = pdf.make_stream(packet.encode(), Type=Name.Metadata, Subtype=Name.XML)
    root.Lang = String("en")
    root.MarkInfo = Dictionary(Marked=True)
    root.ViewerPreferences = Dictionary(DisplayDocTitle=True)
    profile = files("weasyprint.pdf").joinpath("sRGB2014.icc").read_bytes()
    root.OutputIntents = Array(
        [
            Dictionary(
                Type=Name.OutputIntent,
                S=Name.GTS_PDFA1,
                OutputConditionIdentifier=String("sRGB2014"),
                RegistryName=String("https://www.color.org"),
                Info=String("sRGB2014"),
                DestOutputProfile=pdf.make_stream(profile, N=3),
            )
        ]
    )


def attach_files(pdf: pikepdf.Pdf, attached: tuple[AttachedFile, ...]) -> None:
    """Embed files: in the list of attachments, and as associated files of the document (PDF/A-3, 6.8)."""
    for file in attached:
        pdf.attachments[file.name] = pikepdf.AttachedFileSpec(
            pdf,
            file.data,
            filename=file.name,
            description=file.description,
            mime_type=file.media_type,
            creation_date=_date(file.at),
            mod_date=_date(file.at),
            relationship=Name("/" + file.relationship),
        )
    if attached:
        pdf.Root.AF = Array([pdf.attachments[file.name].obj for file in attached])


def _date(at: datetime) -> str:
    return at.astimezone(UTC).strftime("D:%Y%m%d%H%M%SZ")
