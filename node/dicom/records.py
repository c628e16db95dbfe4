"""Which directory record a SOP class has in a DICOMDIR, and what the record needs (PS3.3 F.5).

Data only: `node.dicom.file_set` reads it. A file lacks now and then what a record needs; what may
then be filled in, in the directory only, stands here too.
"""

from dataclasses import dataclass

from pydicom import uid as sop

PRIVATE = "PRIVATE"
PRIVATE_RECORD_UID = "2.25.228301938846529106405210312374015906841"
"""Of our records of instances of private SOP classes without an image: they have no keys."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a directory record beyond those of every record, as DICOM keywords.

    Attributes:
        needed: Type 1: with the file's value, or one that is filled in.
        kept: Type 2: always present, with the file's value or empty.
        given: Present only if the file has a value.
    """

    needed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    given: tuple[str, ...] = ()


PATIENT = Keys(needed=("PatientID",), kept=("PatientName",), given=("PatientBirthDate",))
STUDY = Keys(
    needed=("StudyDate", "StudyTime", "StudyInstanceUID", "StudyID"),
    kept=("StudyDescription", "AccessionNumber"),
)
SERIES = Keys(
    needed=("Modality", "SeriesInstanceUID", "SeriesNumber"),
    given=("SeriesDescription", "InstitutionName"),
)

_CONTENT = Keys(needed=("InstanceNumber", "ContentDate", "ContentTime"))
_LABELLED = Keys(
    needed=("InstanceNumber", "ContentDate", "ContentTime", "ContentLabel"),
    kept=("ContentDescription", "ContentCreatorName"),
)

LEAVES: dict[str, Keys] = {
    "IMAGE": Keys(needed=("InstanceNumber",), given=("ImageType", "NumberOfFrames")),
    "RT DOSE": Keys(needed=("InstanceNumber", "DoseSummationType"), given=("DoseComment",)),
    "RT STRUCTURE SET": Keys(
        needed=("InstanceNumber", "StructureSetLabel"),
        kept=("StructureSetDate", "StructureSetTime"),
    ),
    "RT PLAN": Keys(needed=("InstanceNumber", "RTPlanLabel"), kept=("RTPlanDate", "RTPlanTime")),
    "RT TREAT RECORD": Keys(needed=("InstanceNumber",), kept=("TreatmentDate", "TreatmentTime")),
    "PRESENTATION": Keys(
        needed=(
            "PresentationCreationDate",
            "PresentationCreationTime",
            "InstanceNumber",
            "ContentLabel",
        ),
        kept=("ContentDescription", "ContentCreatorName"),
        given=("ReferencedSeriesSequence", "BlendingSequence"),
    ),
    "WAVEFORM": _CONTENT,
    "SR DOCUMENT": Keys(
        needed=(
            "InstanceNumber",
            "CompletionFlag",
            "VerificationFlag",
            "ContentDate",
            "ContentTime",
            "ConceptNameCodeSequence",
        ),
        given=("VerificationDateTime", "ContentSequence"),
    ),
    "KEY OBJECT DOC": Keys(
        needed=("InstanceNumber", "ContentDate", "ContentTime", "ConceptNameCodeSequence"),
        given=("ContentSequence",),
    ),
    "SPECTROSCOPY": Keys(
        needed=(
            "ImageType",
            "ContentDate",
            "ContentTime",
            "InstanceNumber",
            "NumberOfFrames",
            "Rows",
            "Columns",
            "DataPointRows",
            "DataPointColumns",
        ),
        given=("ReferencedImageEvidenceSequence",),
    ),
    "RAW DATA": _CONTENT,
    "REGISTRATION": _LABELLED,
    "FIDUCIAL": _LABELLED,
    "ENCAP DOC": Keys(
        needed=("InstanceNumber", "MIMETypeOfEncapsulatedDocument"),
        kept=("ContentDate", "ContentTime", "DocumentTitle", "ConceptNameCodeSequence"),
        given=("HL7InstanceIdentifier",),
    ),
    "VALUE MAP": _LABELLED,
    "STEREOMETRIC": Keys(),
    "PLAN": Keys(),
    "MEASUREMENT": _LABELLED,
    "SURFACE": _LABELLED,
    "SURFACE SCAN": Keys(needed=("ContentDate", "ContentTime")),
    "TRACT": _LABELLED,
    "ASSESSMENT": Keys(
        needed=("InstanceNumber", "InstanceCreationDate"), kept=("InstanceCreationTime",)
    ),
    "RADIOTHERAPY": Keys(
        needed=("InstanceNumber",),
        kept=("ContentDescription", "ContentCreatorName"),
        given=("UserContentLabel", "UserContentLongLabel"),
    ),
    PRIVATE: Keys(),
}

_CLASSES: dict[str, tuple[str, ...]] = {
    "RT DOSE": (sop.RTDoseStorage,),
    "RT STRUCTURE SET": (sop.RTStructureSetStorage,),
    "RT PLAN": (sop.RTPlanStorage, sop.RTIonPlanStorage),
    "RT TREAT RECORD": (
        sop.RTBeamsTreatmentRecordStorage,
        sop.RTBrachyTreatmentRecordStorage,
        sop.RTTreatmentSummaryRecordStorage,
        sop.RTIonBeamsTreatmentRecordStorage,
    ),
    "PRESENTATION": (
        sop.GrayscaleSoftcopyPresentationStateStorage,
        sop.ColorSoftcopyPresentationStateStorage,
        sop.PseudoColorSoftcopyPresentationStateStorage,
        sop.BlendingSoftcopyPresentationStateStorage,
        sop.XAXRFGrayscaleSoftcopyPresentationStateStorage,
        sop.GrayscalePlanarMPRVolumetricPresentationStateStorage,
        sop.CompositingPlanarMPRVolumetricPresentationStateStorage,
        sop.AdvancedBlendingPresentationStateStorage,
        sop.VolumeRenderingVolumetricPresentationStateStorage,
        sop.SegmentedVolumeRenderingVolumetricPresentationStateStorage,
        sop.MultipleVolumeRenderingVolumetricPresentationStateStorage,
        sop.VariableModalityLUTSoftcopyPresentationStateStorage,
        sop.BasicStructuredDisplayStorage,
    ),
    "WAVEFORM": (
        sop.TwelveLeadECGWaveformStorage,
        sop.GeneralECGWaveformStorage,
        sop.AmbulatoryECGWaveformStorage,
        sop.General32bitECGWaveformStorage,
        sop.HemodynamicWaveformStorage,
        sop.CardiacElectrophysiologyWaveformStorage,
        sop.BasicVoiceAudioWaveformStorage,
        sop.GeneralAudioWaveformStorage,
        sop.ArterialPulseWaveformStorage,
        sop.RespiratoryWaveformStorage,
        sop.MultichannelRespiratoryWaveformStorage,
        sop.RoutineScalpElectroencephalogramWaveformStorage,
        sop.ElectromyogramWaveformStorage,
        sop.ElectrooculogramWaveformStorage,
        sop.SleepElectroencephalogramWaveformStorage,
        sop.BodyPositionWaveformStorage,
    ),
    "SR DOCUMENT": (
        sop.BasicTextSRStorage,
        sop.EnhancedSRStorage,
        sop.ComprehensiveSRStorage,
        sop.Comprehensive3DSRStorage,
        sop.ExtensibleSRStorage,
        sop.ProcedureLogStorage,
        sop.MammographyCADSRStorage,
        sop.ChestCADSRStorage,
        sop.ColonCADSRStorage,
        sop.XRayRadiationDoseSRStorage,
        sop.EnhancedXRayRadiationDoseSRStorage,
        sop.RadiopharmaceuticalRadiationDoseSRStorage,
        sop.PatientRadiationDoseSRStorage,
        sop.PlannedImagingAgentAdministrationSRStorage,
        sop.PerformedImagingAgentAdministrationSRStorage,
        sop.ImplantationPlanSRStorage,
        sop.AcquisitionContextSRStorage,
        sop.SimplifiedAdultEchoSRStorage,
        sop.WaveformAnnotationSRStorage,
        sop.SpectaclePrescriptionReportStorage,
        sop.MacularGridThicknessAndVolumeReportStorage,
    ),
    "KEY OBJECT DOC": (sop.KeyObjectSelectionDocumentStorage,),
    "SPECTROSCOPY": (sop.MRSpectroscopyStorage,),
    "RAW DATA": (sop.RawDataStorage,),
    "REGISTRATION": (
        sop.SpatialRegistrationStorage,
        sop.DeformableSpatialRegistrationStorage,
    ),
    "FIDUCIAL": (sop.SpatialFiducialsStorage,),
    "ENCAP DOC": (
        sop.EncapsulatedPDFStorage,
        sop.EncapsulatedCDAStorage,
        sop.EncapsulatedSTLStorage,
        sop.EncapsulatedOBJStorage,
        sop.EncapsulatedMTLStorage,
    ),
    "VALUE MAP": (sop.RealWorldValueMappingStorage,),
    "STEREOMETRIC": (sop.StereometricRelationshipStorage,),
    "PLAN": (
        sop.RTBeamsDeliveryInstructionStorage,
        sop.RTBrachyApplicationSetupDeliveryInstructionStorage,
    ),
    "MEASUREMENT": (
        sop.LensometryMeasurementsStorage,
        sop.AutorefractionMeasurementsStorage,
        sop.KeratometryMeasurementsStorage,
        sop.SubjectiveRefractionMeasurementsStorage,
        sop.VisualAcuityMeasurementsStorage,
        sop.OphthalmicAxialMeasurementsStorage,
        sop.OphthalmicVisualFieldStaticPerimetryMeasurementsStorage,
    ),
    "SURFACE": (sop.SurfaceSegmentationStorage,),
    "SURFACE SCAN": (sop.SurfaceScanMeshStorage, sop.SurfaceScanPointCloudStorage),
    "TRACT": (sop.TractographyResultsStorage,),
    "ASSESSMENT": (sop.ContentAssessmentResultsStorage,),
    "RADIOTHERAPY": (
        sop.RTPhysicianIntentStorage,
        sop.RTSegmentAnnotationStorage,
        sop.RTRadiationSetStorage,
        sop.CArmPhotonElectronRadiationStorage,
        sop.TomotherapeuticRadiationStorage,
        sop.RoboticArmRadiationStorage,
        sop.RTRadiationRecordSetStorage,
        sop.RTRadiationSalvageRecordStorage,
        sop.TomotherapeuticRadiationRecordStorage,
        sop.CArmPhotonElectronRadiationRecordStorage,
        sop.RoboticRadiationRecordStorage,
        sop.RTRadiationSetDeliveryInstructionStorage,
        sop.RTTreatmentPreparationStorage,
    ),
}

_TYPES = {str(uid): name for name, uids in _CLASSES.items() for uid in uids}

# Substitutes for a missing value: the first of these elements that the file has, else the constant.
_SUBSTITUTES = {
    "StudyDate": ("SeriesDate", "AcquisitionDate", "ContentDate"),
    "StudyTime": ("SeriesTime", "AcquisitionTime", "ContentTime"),
    "ContentDate": ("InstanceCreationDate", "AcquisitionDate", "SeriesDate", "StudyDate"),
    "ContentTime": ("InstanceCreationTime", "AcquisitionTime", "SeriesTime", "StudyTime"),
    "PresentationCreationDate": ("ContentDate", "InstanceCreationDate", "StudyDate"),
    "PresentationCreationTime": ("ContentTime", "InstanceCreationTime", "StudyTime"),
    "InstanceCreationDate": ("ContentDate", "StudyDate"),
}
_FILLED_IN = {
    "PatientID": b"UNKNOWN",
    "StudyDate": b"19000101",
    "StudyTime": b"000000",
    "StudyID": b"1",
    "Modality": b"OT",
    "SeriesNumber": b"1",
    "ContentDate": b"19000101",
    "ContentTime": b"000000",
    "ContentLabel": b"UNKNOWN",
    "PresentationCreationDate": b"19000101",
    "PresentationCreationTime": b"000000",
    "InstanceCreationDate": b"19000101",
    "StructureSetLabel": b"UNKNOWN",
    "RTPlanLabel": b"UNKNOWN",
    "CompletionFlag": b"PARTIAL",
    "VerificationFlag": b"UNVERIFIED",
    "NumberOfFrames": b"1",
    "ImageType": b"ORIGINAL\\PRIMARY",
}

READ = tuple(
    sorted(
        {
            "SpecificCharacterSet",
            "SOPClassUID",
            "SOPInstanceUID",
            "StudyInstanceUID",
            "SeriesInstanceUID",
            "Rows",
            "MIMETypeOfEncapsulatedDocument",
            *(word for words in _SUBSTITUTES.values() for word in words),
            *(
                word
                for keys in (PATIENT, STUDY, SERIES, *LEAVES.values())
                for word in (*keys.needed, *keys.kept, *keys.given)
            ),
        }
    )
)
"""What is read of a file."""


def record_type(sop_class: str, *, has_image: bool, has_document: bool) -> str:
    """Return the type of record that an instance has; empty if none is known for its class."""
    if sop_class in _TYPES:
        return _TYPES[sop_class]
    if has_document:
        return "ENCAP DOC"
    if has_image:
        return "IMAGE"
    return PRIVATE if sop.UID(sop_class).is_private else ""


def stand_ins(keyword: str) -> tuple[tuple[str, ...], bytes]:
    """Return the substitutes for an element without a value: other elements, then a constant."""
    return _SUBSTITUTES.get(keyword, ()), _FILLED_IN.get(keyword, b"")
